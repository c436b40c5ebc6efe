// A term of the glossary explains itself: under the pointer, under the keyboard's focus, at the first tap of a finger.
// Its link carries the definition as a title (book/workshop/terms.py); here the title becomes a tip that a keyboard reaches,
// a screen reader reads, Escape closes and the pointer may enter.
const tip = document.createElement("div");
tip.id = "tta-tip";
tip.setAttribute("role", "tooltip");
tip.hidden = true;
document.querySelector("main")?.append(tip);
let shown = null, leaving;

function place() {
  if (!shown) return;
  const line = shown.getClientRects()[0], margin = 8; // of a link that wraps, the first line
  tip.style.left = `${Math.max(margin, Math.min(line.left, document.documentElement.clientWidth - tip.offsetWidth - margin))}px`;
  const below = line.bottom + margin, above = line.top - margin - tip.offsetHeight;
  tip.style.top = `${below + tip.offsetHeight > innerHeight && above > 0 ? above : below}px`;
}
function show(link) {
  clearTimeout(leaving);
  if (shown === link) return;
  hide();
  tip.textContent = link.dataset.tip;
  tip.hidden = false;
  shown = link;
  link.setAttribute("aria-describedby", tip.id);
  place();
}
function hide() {
  clearTimeout(leaving);
  shown?.removeAttribute("aria-describedby");
  tip.hidden = true;
  shown = null;
}
const leave = () => (leaving = setTimeout(hide, 250)); // long enough to move the pointer onto the tip

document.querySelectorAll("a[title]:has(.std-term)").forEach((link) => {
  link.dataset.tip = link.title;
  link.removeAttribute("title"); // or the browser would show a second one
  link.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && show(link));
  link.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && leave());
  link.addEventListener("focus", () => link.matches(":focus-visible") && show(link));
  link.addEventListener("blur", hide);
  link.addEventListener("click", (event) => {
    if (event.pointerType === "mouse" || !event.pointerType || shown === link) return; // a second tap follows the link
    event.preventDefault();
    show(link);
  });
});
tip.addEventListener("pointerenter", () => clearTimeout(leaving));
tip.addEventListener("pointerleave", leave);
addEventListener("keydown", (event) => event.key === "Escape" && hide());
addEventListener("pointerdown", (event) => shown && !shown.contains(event.target) && !tip.contains(event.target) && hide());
addEventListener("scroll", place, { capture: true, passive: true });
addEventListener("resize", place);
