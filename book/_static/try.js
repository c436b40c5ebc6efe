// "Try it on your own photographs": scores pictures in the browser and shows them in a table.
// Pictures are drawn on canvases of this page and go into a model that runs here, in WebAssembly. Nothing is sent anywhere.

const CROP = 96, GRID = 3, SHORT = 288, PRIOR = 16, MOST = 40;
const ROWS = GRID * GRID, SIZE = ROWS * 3 * CROP * CROP; // crops of a picture, and their numbers
const part = (name) => document.getElementById(`try-${name}`);
const here = (path) => new URL(path, import.meta.url);
const say = (text) => { part("status").textContent = text; };
const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
const pause = () => new Promise((resolve) => setTimeout(resolve, 20)); // lets the browser show what was said
let ort, session, turn = Promise.resolve();
let pictures = []; // {name, canvas, crops} and the columns of the table
let share = null; // what the reader chose; null: α = B / (B + PRIOR)
let order = { key: "adapted", sign: -1 };

// --- the model: fetched when the reader asks for it

async function fetchBytes(path, packed = false) {
  const answer = await fetch(here(path));
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return (packed ? new Response(answer.body.pipeThrough(new DecompressionStream("gzip"))) : answer).arrayBuffer();
}

async function start() {
  part("start").disabled = true;
  say("Fetching the model and its runtime …");
  try {
    const [runtime, wasmBinary, model] = await Promise.all([
      import(here("ort/ort.mjs")), fetchBytes("ort/ort.wasm.gzip", true), fetchBytes("try/model.onnx"),
    ]);
    ort = runtime;
    Object.assign(ort.env.wasm, { wasmBinary, numThreads: 1 }); // more need headers that a plain server does not send
    session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  } catch (error) {
    part("start").disabled = false;
    return say(`The model could not be started (${error.message}). Try again, or use a current browser.`);
  }
  part("asleep").hidden = true;
  part("awake").hidden = false;
  say("The model is ready. Choose pictures, drop them here, or use the examples.");
  part("choose").focus();
}

/** Scores of the crops of several pictures, with the moments of all of them at share α → one number a picture. */
function score(chosen, alpha) {
  const run = async () => {
    const pixels = new Float32Array(chosen.length * SIZE);
    chosen.forEach((picture, i) => pixels.set(picture.crops, i * SIZE));
    const images = new ort.Tensor("float32", pixels, [chosen.length * ROWS, 3, CROP, CROP]);
    const { scores } = await session.run({ images, alpha: new ort.Tensor("float32", [alpha], []) });
    return chosen.map((_, i) => scores.data.subarray(i * ROWS, (i + 1) * ROWS).reduce((a, b) => a + b) / ROWS);
  };
  return (turn = turn.then(run, run)); // the model takes one call at a time
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

/** A file → a canvas whose short side is at most SHORT. In halves, since one large step may skip pixels. */
async function reduce(file) {
  let image = await createImageBitmap(file);
  const scale = Math.min(1, SHORT / Math.min(image.width, image.height));
  const [width, height] = [image.width, image.height].map((length) => Math.round(length * scale));
  while (image.width >= 2 * width) image = paint(image, Math.ceil(image.width / 2), Math.ceil(image.height / 2));
  return paint(image, width, height);
}

/** A canvas → its crops, GRID × GRID from edge to edge, (ROWS, 3, CROP, CROP) in [0, 1]. */
function cut(canvas) {
  const spots = (length) => Array.from({ length: GRID }, (_, i) => Math.floor((i * (length - CROP)) / (GRID - 1)));
  const crops = new Float32Array(SIZE);
  let at = 0;
  for (const top of spots(canvas.height))
    for (const left of spots(canvas.width)) {
      const { data } = canvas.getContext("2d").getImageData(left, top, CROP, CROP);
      for (let channel = 0; channel < 3; channel++)
        for (let i = channel; i < data.length; i += 4) crops[at++] = data[i] / 255;
    }
  return crops;
}

/** Take in some files: [{name, blob}], of examples with their quality. What cannot be read is named; the rest is scored. */
async function add(files) {
  const refused = [];
  for (const [i, { blob, ...about }] of files.entries()) {
    say(`Scoring picture ${i + 1} of ${files.length} …`);
    await pause();
    try {
      if (pictures.length >= MOST) throw new Error(`${MOST} pictures are the most`);
      const canvas = await reduce(blob);
      if (Math.min(canvas.width, canvas.height) < CROP) throw new Error(`smaller than ${CROP} pixels`);
      const picture = { ...about, canvas, crops: cut(canvas) };
      [picture.source] = await score([picture], 0);
      pictures.push(picture);
    } catch (error) {
      const unreadable = error.name === "InvalidStateError"; // what browsers say of a file that is no picture
      refused.push(`${about.name} (${unreadable ? "no picture that this browser can read" : error.message})`);
    }
  }
  await adapt();
  if (refused.length) say(`${part("status").textContent} Not read: ${refused.join(", ")}.`);
}

async function addExamples() {
  const examples = JSON.parse(new TextDecoder().decode(await fetchBytes("try/examples.json")));
  const load = async ({ file, ...about }) => ({ ...about, blob: new Blob([await fetchBytes(`try/${file}`)]) });
  const missing = examples.filter(({ name }) => !pictures.some((picture) => picture.name === name));
  await add(await Promise.all(missing.map(load)));
}

let latest = 0;
async function adapt() {
  const mine = ++latest, chosen = [...pictures], count = chosen.length, several = count > 1;
  const alpha = several ? share ?? count / (count + PRIOR) : 0;
  for (const name of ["alpha", "none", "shrink"]) part(name).disabled = !several;
  part("clear").disabled = !count;
  part("alpha").value = alpha;
  part("value").textContent = alpha.toFixed(2) + (several && share === null ? ` = ${count} / (${count} + ${PRIOR})` : "");
  part("alpha").setAttribute("aria-valuetext", part("value").textContent);
  await turn.then(pause, pause);
  if (mine !== latest) return; // the slider has moved on
  const scores = several ? await score(chosen, alpha) : [];
  chosen.forEach((picture, i) => {
    picture.adapted = scores[i];
    picture.change = several ? scores[i] - picture.source : undefined;
  });
  show();
  say(summary(several, alpha));
}

function summary(several, alpha) {
  if (!pictures.length) return "No pictures yet.";
  if (!several) return "One picture is scored. Add a second: the statistics of one picture say nothing about a shift.";
  const text = `${pictures.length} pictures are scored, adapted with α = ${alpha.toFixed(2)}.`;
  if (!pictures.every((picture) => "quality" in picture)) return text;
  const [before, after] = ["source", "adapted"].map((key) => rankCorrelation(key, "quality").toFixed(2));
  return `${text} Rank correlation with the computed quality: source ${before}, adapted ${after}.`;
}

/** Spearman's, of two columns of the table. A value's centred rank is half its wins less its losses against the others. */
function rankCorrelation(...columns) {
  const [x, y] = columns.map((key) => pictures.map((a) => pictures.reduce((sum, b) => sum + Math.sign(a[key] - b[key]), 0)));
  const product = (u, v) => u.reduce((sum, value, i) => sum + value * v[i], 0);
  return product(x, y) / Math.sqrt(product(x, x) * product(y, y));
}

// --- the table

function show() {
  const known = pictures.some((picture) => "quality" in picture);
  for (const { parentElement: head, dataset } of part("table").querySelectorAll("th button")) {
    head.setAttribute("aria-sort", dataset.key !== order.key ? "none" : order.sign < 0 ? "descending" : "ascending");
    head.hidden = dataset.key === "quality" && !known;
  }
  const value = (picture) => picture[order.key] ?? -1;
  const sorted = [...pictures].sort((a, b) => order.sign * (value(a) - value(b)));
  part("rows").replaceChildren(...sorted.map((picture) => {
    const row = make("tr"), head = make("th", { scope: "row", textContent: picture.name });
    picture.canvas.setAttribute("aria-hidden", "true"); // its name stands beside it
    head.prepend(picture.canvas);
    row.append(head);
    for (const key of ["source", "adapted", "change", ...(known ? ["quality"] : [])]) {
      const sign = key === "change" && picture[key] >= 0 ? "+" : "";
      row.append(make("td", { textContent: sign + (picture[key]?.toFixed(3).replace("-", "−") ?? "–") }));
    }
    return row;
  }));
  part("table").hidden = !pictures.length;
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
on("alpha", "input", ({ target }) => { share = Number(target.value); adapt(); });
on("none", "click", () => { share = 0; adapt(); });
on("shrink", "click", () => { share = null; adapt(); });
on("table", "click", ({ target: { dataset: { key } } }) => {
  if (key) order = { key, sign: key === order.key ? -order.sign : -1 };
  show();
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => { event.preventDefault(); if (session) take(event.dataTransfer.files); });
part("serve").hidden = true;
part("tool").hidden = false;
