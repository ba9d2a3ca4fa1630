// The theme lets the keyboard reach code that is wider than the page, but measures it only when the
// page opens or changes its size: code that was folded away then would stay out of reach.
const measureAgain = () => window.dispatchEvent(new Event("resize"));
document.addEventListener("toggle", measureAgain, true);
document.addEventListener("click", (e) => e.target.closest?.(".toggle") && measureAgain());
