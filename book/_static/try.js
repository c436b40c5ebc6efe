// "Try it on your own photographs": scores pictures in the browser and shows them in a table.
// Pictures are drawn on canvases of this page and go into a model that runs here, in WebAssembly. Nothing is sent anywhere.

const GRID = 2, ROWS = GRID * GRID, PRIOR = 16, MOST = 20; // ROWS: crops of a picture
const part = (name) => document.getElementById(`try-${name}`);
const here = (path) => new URL(path, import.meta.url);
const say = (text) => { part("status").textContent = text; };
const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
const pause = () => new Promise((resolve) => setTimeout(resolve, 20)); // lets the browser show what was said
let turn = Promise.resolve(), threads = []; // one for each view of a picture, as it is and mirrored
let model; // {crop, side, views, layers} and the quantiles of people's opinions
let pictures = []; // {name, canvas, crops} and the columns of the table
let share = null; // what the reader chose; null: α = B / (B + PRIOR)
let order = { key: "adapted", sign: -1 };

// --- the model: fetched when the reader asks for it

async function fetchBytes(path, packed = false) {
  const answer = await fetch(here(path));
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return (packed ? new Response(answer.body.pipeThrough(new DecompressionStream("gzip"))) : answer).arrayBuffer();
}

const fetchJson = async (path) => JSON.parse(new TextDecoder().decode(await fetchBytes(path)));

async function start() {
  part("start").disabled = true;
  say("Fetching the model and its runtime …");
  try {
    const [wasm, graph, about] = await Promise.all([
      fetchBytes("ort/ort.wasm.gzip", true), fetchBytes("try/model.onnx"), fetchJson("try/model.json"),
    ]);
    // A thread from a blob is under the policy of this page; from a file it would be under none.
    const script = URL.createObjectURL(new Blob([`import "${here("try-model.js")}";`], { type: "text/javascript" }));
    threads = Array.from({ length: about.views }, () => new Worker(script, { type: "module" }));
    await Promise.all(threads.map((thread) => ask(thread, "start", { runtime: here("ort/ort.mjs").href, wasm, graph: new Uint8Array(graph) })));
    model = about;
  } catch (error) {
    for (const thread of threads.splice(0)) thread.terminate();
    part("start").disabled = false;
    return say(`The model could not be started (${error.message}). Try again, or use a current browser.`);
  }
  part("asleep").hidden = true;
  part("awake").hidden = false;
  say("The model is ready. Choose pictures, drop them here, or use the examples.");
  part("choose").focus();
}

/** What a thread answers to a call. It takes one at a time. */
function ask(thread, call, given, moved = []) {
  return new Promise((resolve, reject) => {
    thread.onmessage = ({ data }) => (data.problem === undefined ? resolve(data.answer) : reject(new Error(data.problem)));
    thread.onerror = ({ message }) => reject(new Error(message ?? "no thread for the model"));
    thread.postMessage({ call, ...given }, moved);
  });
}

/** Scores of several pictures, means over crops and mirrored crops. Layer by layer a share of their common moments counts. */
function score(chosen, shares) {
  const { crop } = model, size = ROWS * 3 * crop * crop;
  const ofView = async (thread, view) => { // each with moments of its own, as in the library
    const pixels = new Float32Array(chosen.length * size);
    chosen.forEach((picture, i) => pixels.set(picture.crops, i * size));
    if (view) for (let i = 0; i < pixels.length; i += crop) pixels.subarray(i, i + crop).reverse();
    return ask(thread, "score", { pixels, shape: [chosen.length * ROWS, 3, crop, crop], shares }, [pixels.buffer]);
  };
  const run = async () => {
    const views = await Promise.all(threads.map(ofView)); // at the same time
    const mean = (i) => views.flatMap((scores) => [...scores.slice(i * ROWS, (i + 1) * ROWS)]).reduce((a, b) => a + b) / ROWS / views.length;
    return chosen.map((_, i) => mean(i));
  };
  return (turn = turn.then(run, run));
}

/** Share α in the first layers, as many as the reader chose, and 0 in the others. */
const sharesOf = (alpha) => Float32Array.from({ length: model.layers }, (_, i) => i / model.layers < part("layers").value ? alpha : 0);

/** How many per cent of the photographs that people judged have a lower mean opinion than this score. */
function percentile(score) {
  const { quantiles } = model, last = quantiles.length - 1, above = quantiles.findIndex((quantile) => quantile > score);
  if (above < 1) return above < 0 ? 100 : 0;
  const [low, high] = quantiles.slice(above - 1, above + 1);
  return ((above - 1 + (score - low) / (high - low)) / last) * 100;
}

// --- pictures

function paint(image, width, height) {
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // below what is transparent
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  return canvas;
}

/** A file → a canvas whose short side is at most the model's. In halves, since one large step may skip pixels. */
async function reduce(file) {
  let image = await createImageBitmap(file);
  const scale = Math.min(1, model.side / Math.min(image.width, image.height));
  const [width, height] = [image.width, image.height].map((length) => Math.round(length * scale));
  while (image.width >= 2 * width) image = paint(image, Math.ceil(image.width / 2), Math.ceil(image.height / 2));
  return paint(image, width, height);
}

/** A canvas → its crops, the centres of a grid of GRID × GRID, (ROWS, 3, crop, crop) in [0, 1]. */
function cut(canvas) {
  const { crop } = model, crops = new Float32Array(ROWS * 3 * crop * crop);
  const even = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)); // halves, as the library rounds them
  const spots = (length) => Array.from({ length: GRID }, (_, i) => even(((i + 0.5) / GRID) * (length - crop)));
  let at = 0;
  for (const top of spots(canvas.height))
    for (const left of spots(canvas.width)) {
      const { data } = canvas.getContext("2d").getImageData(left, top, crop, crop);
      for (let channel = 0; channel < 3; channel++)
        for (let i = channel; i < data.length; i += 4) crops[at++] = data[i] / 255;
    }
  return crops;
}

/** Take in some files: [{name, blob}], of examples with their score in the light. What cannot be read is named; the rest is scored. */
async function add(files) {
  const refused = [];
  for (const [i, { blob, ...about }] of files.entries()) {
    say(`Scoring picture ${i + 1} of ${files.length} …`);
    await pause();
    try {
      if (pictures.length >= MOST) throw new Error(`${MOST} pictures are the most`);
      const canvas = await reduce(blob);
      if (Math.min(canvas.width, canvas.height) < model.crop) throw new Error(`smaller than ${model.crop} pixels`);
      const picture = { ...about, canvas, crops: cut(canvas) };
      [picture.source] = await score([picture], sharesOf(0));
      pictures.push(picture);
      show();
    } catch (error) {
      const unreadable = error.name === "InvalidStateError"; // what browsers say of a file that is no picture
      refused.push(`${about.name} (${unreadable ? "no picture that this browser can read" : error.message})`);
    }
  }
  await adapt();
  if (refused.length) say(`${part("status").textContent} Not read: ${refused.join(", ")}.`);
}

async function addExamples() {
  const examples = await fetchJson("try/examples.json");
  const load = async ({ file, ...about }) => ({ ...about, blob: new Blob([await fetchBytes(`try/${file}`)]) });
  const missing = examples.filter(({ name }) => !pictures.some((picture) => picture.name === name));
  await add(await Promise.all(missing.map(load)));
}

let latest = 0;
async function adapt() {
  const mine = ++latest, chosen = [...pictures], count = chosen.length, several = count > 1;
  const alpha = several ? share ?? count / (count + PRIOR) : 0;
  for (const name of ["alpha", "layers", "none", "shrink"]) part(name).disabled = !several;
  part("clear").disabled = !count;
  part("alpha").value = alpha;
  tell(alpha, several && share === null ? ` = ${count} / (${count} + ${PRIOR})` : "");
  await turn.then(pause, pause);
  if (mine !== latest) return; // the reader has moved on
  let scores = chosen.map((picture) => picture.source); // and at α = 0 they remain so
  if (alpha) {
    say(`Adapting to ${count} pictures …`);
    scores = await score(chosen, sharesOf(alpha));
    if (mine !== latest) return;
  }
  chosen.forEach((picture, i) => {
    picture.adapted = several ? scores[i] : undefined;
    picture.change = several ? scores[i] - picture.source : undefined;
  });
  show();
  say(summary(several, alpha));
}

function tell(alpha, why = "") {
  part("value").textContent = alpha.toFixed(2) + why;
  part("alpha").setAttribute("aria-valuetext", part("value").textContent);
}

function summary(several, alpha) {
  if (!pictures.length) return "No pictures yet.";
  if (!several) return "One picture is scored. Add a second: the statistics of one picture say nothing about a shift.";
  const text = `${pictures.length} pictures are scored, adapted with α = ${alpha.toFixed(2)} in ${part("layers").selectedOptions[0].text}.`;
  if (!pictures.every((picture) => "light" in picture)) return text;
  const distance = (key) => pictures.reduce((sum, picture) => sum + Math.abs(picture[key] - picture.light), 0) / pictures.length;
  const [before, after] = ["source", "adapted"].map((key) => distance(key).toFixed(1));
  return `${text} Mean distance from the scores in the light: source ${before}, adapted ${after}.`;
}

// --- the table

function show() {
  const known = pictures.some((picture) => "light" in picture);
  for (const { parentElement: head, dataset } of part("table").querySelectorAll("th button")) {
    head.setAttribute("aria-sort", dataset.key !== order.key ? "none" : order.sign < 0 ? "descending" : "ascending");
    head.hidden = dataset.key === "light" && !known;
  }
  const value = (picture) => picture[order.key] ?? -1;
  const sorted = [...pictures].sort((a, b) => order.sign * (value(a) - value(b)));
  part("rows").replaceChildren(...sorted.map((picture) => {
    const row = make("tr"), head = make("th", { scope: "row", textContent: picture.name });
    picture.canvas.setAttribute("aria-hidden", "true"); // its name stands beside it
    head.prepend(picture.canvas);
    row.append(head);
    for (const key of ["source", "adapted", "change", ...(known ? ["light"] : [])]) row.append(cell(key, picture[key]));
    return row;
  }));
  part("table").hidden = !pictures.length;
}

/** A number as people read it, its exact value for whoever wants it, and of a score what it means. */
function cell(key, value) {
  const box = make("td");
  if (value === undefined) return Object.assign(box, { textContent: "–" });
  const text = (key === "change" && value >= 0 ? "+" : "") + value.toFixed(1).replace("-", "−");
  box.append(make("data", { value, textContent: text }));
  if (key === "source" || key === "adapted")
    box.append(make("small", { textContent: `better than ${Math.round(percentile(value))} %` }));
  return box;
}

// --- what the reader does

const on = (name, event, act) => part(name).addEventListener(event, act);
const take = (files) => add([...files].map((blob) => ({ name: blob.name, blob })));
addEventListener("unhandledrejection", ({ reason }) => say(`Something went wrong (${reason.message}).`));
on("start", "click", start);
on("choose", "click", () => part("files").click());
on("files", "change", async ({ target }) => { await take(target.files); target.value = ""; });
on("examples", "click", addExamples);
on("clear", "click", () => { pictures = []; share = null; adapt(); part("choose").focus(); });
on("alpha", "input", ({ target }) => tell(Number(target.value)));
on("alpha", "change", ({ target }) => { share = Number(target.value); adapt(); });
on("layers", "change", adapt);
on("none", "click", () => { share = 0; adapt(); });
on("shrink", "click", () => { share = null; adapt(); });
on("table", "click", ({ target: { dataset: { key } } }) => {
  if (key) order = { key, sign: key === order.key ? -order.sign : -1 };
  show();
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => { event.preventDefault(); if (model) take(event.dataTransfer.files); });
part("serve").hidden = true;
part("tool").hidden = false;
