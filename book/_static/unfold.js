// The theme lets the keyboard reach code that is wider than the page, but measures it only when the
// page opens or changes its size: code that was folded away then would stay out of reach.
const measureAgain = () => window.dispatchEvent(new Event("resize"));
document.addEventListener("toggle", measureAgain, true);
document.addEventListener("click", (e) => e.target.closest?.(".toggle") && measureAgain());

// What can be scrolled to the right says so, see book.css.
const WIDE = ".bd-article :is(figure.fig > div, .pst-scrollable-table-container, div.math, mjx-container[display])";
const mark = (box) =>
  box.toggleAttribute("data-more", box.scrollWidth - box.clientWidth - box.scrollLeft > 4);
const markAll = () => document.querySelectorAll(WIDE).forEach(mark);
window.addEventListener("load", () => setTimeout(markAll, 500)); // MathJax is done by then
window.addEventListener("resize", markAll);
document.addEventListener("scroll", (e) => e.target.matches?.(WIDE) && mark(e.target), true);
