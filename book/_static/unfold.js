// The theme lets the keyboard reach code that is wider than the page, but measures it only when the
// page opens or changes its size: code that was folded away then would stay out of reach.
document.addEventListener("toggle", () => window.dispatchEvent(new Event("resize")), true);
