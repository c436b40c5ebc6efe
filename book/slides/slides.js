// A chapter as slides: reveal.js turns them, MathJax sets their formulas before.

const [WIDTH, HEIGHT, SMALLEST] = [1280, 720, 60]; // pixels, and per cent

// A slide that is taller than the screen is drawn smaller, down to a point; then it scrolls.
function fit() {
  const slide = Reveal.getCurrentSlide();
  for (let zoom = 100; zoom >= SMALLEST; zoom -= 5) {
    slide.style.zoom = `${zoom}%`;
    slide.style.maxHeight = `${(100 * HEIGHT) / zoom}px`;
    if (slide.scrollHeight <= slide.clientHeight + 1) break;
  }
}

// A slider or an option that has been clicked on takes the arrow keys. A presenter's keys turn the slide all the same, and
// Escape gives the arrows back.
function turn(event) {
  const move = { PageDown: Reveal.next, PageUp: Reveal.prev }[event.key];
  if (!document.activeElement.matches("input")) return;
  if (move || event.key === "Escape") {
    event.preventDefault();
    event.stopPropagation();
    document.activeElement.blur();
    move?.();
  }
}

async function start() {
  await MathJax.startup.promise;
  await Reveal.initialize({
    width: WIDTH,
    height: HEIGHT,
    margin: 0.02,
    center: false,
    hash: true,
    transition: "none",
    slideNumber: "h.v",
    plugins: [RevealNotes],
  });
  fit();
  Reveal.on("slidechanged", fit);
  document.addEventListener("change", fit); // the feedback of a quiz takes room
  document.addEventListener("keydown", turn, { capture: true });
}

start();
