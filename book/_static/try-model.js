// The model in a thread of its own: the page starts one for each view of the pictures (see try.js) and talks to it in messages.

let session, Tensor;

async function start({ runtime, wasm, graph }) {
  const ort = await import(runtime);
  // One thread each: more would need headers that a plain server does not send.
  Object.assign(ort.env.wasm, { wasmBinary: wasm, numThreads: 1 });
  Tensor = ort.Tensor;
  session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
}

/** Scores of rows (count, 3, crop, crop), with a share of their common moments in each layer. */
async function score({ pixels, shape, shares }) {
  const feeds = { images: new Tensor("float32", pixels, shape), alpha: new Tensor("float32", shares, [shares.length]) };
  return (await session.run(feeds)).scores.data;
}

onmessage = async ({ data: { call, ...given } }) => {
  try {
    postMessage({ answer: await { start, score }[call](given) });
  } catch ({ message }) {
    postMessage({ problem: message });
  }
};
