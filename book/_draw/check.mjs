// node check.mjs FOLDER: rank the check's sketches with the built page's own files; prints JSON.
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { runInThisContext } from "node:vm";

const folder = resolve(process.argv[2]);
const run = (path) => runInThisContext(readFileSync(path, "utf8"), { filename: path });
run(new URL("engine.js", import.meta.url).pathname);
for (const name of readdirSync(folder)) {
  if (/^(about|check|part-\d+)\.js$/.test(name)) run(join(folder, name));
}
const engine = globalThis.ssgnDraw;
const [code, wasm, network] = await Promise.all(["ort", "wasm", "network"].map(engine.unpacked));
const scratch = mkdtempSync(join(tmpdir(), "ssgn-"));
try {
  writeFileSync(join(scratch, "ort.mjs"), code); // the browser makes a URL of it instead
  const ort = await import(pathToFileURL(join(scratch, "ort.mjs")).href);
  const search = await engine.start(ort, wasm, network);
  console.log(JSON.stringify(await engine.compare(search, engine.check)));
} finally {
  rmSync(scratch, { recursive: true });
}
