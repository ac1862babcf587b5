/**
 * Takes the pictures of `cache-machine top` in docs/images: the program runs in a terminal of 80 × 24 beside a real cache under load, and
 * what stands on the screen is written as SVG, with the colours of a dark and of a light terminal. Four processes read and write, one more
 * holds a lock and is stopped, one waits for that lock, and one is killed.
 *
 *     npm run build && node scripts/top-pictures.mjs
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const NAME = "sessions";
const [COLUMNS, ROWS] = [80, 24];
/** Long enough for a curve, in milliseconds. */
const WATCHED = 75_000;

/** A participant: `load`, `hold` or `wait`. */
async function participate(role, path) {
  const { openCache } = await import("../dist/index.js");
  const cache = openCache(NAME, { size: "32mb", path });
  if (role === "hold") {
    await cache.locks.request("report", () => {
      process.send("ready");
      return new Promise(() => setInterval(() => {}, 1000));
    });
  } else if (role === "wait") cache.locks.request("report", () => {});
  else burst(cache, 0);
  process.send("ready");
}

/** Reads and writes a little, and again. The load goes up and down. */
function burst(cache, round) {
  const key = () => `user:${Math.floor(100_000 ** Math.random())}`;
  for (let i = 0; i < 60 + 50 * Math.sin(round / 400); i++) {
    const id = key();
    if (cache.get(id) === undefined) cache.set(id, { id, roles: ["reader"], text: "x".repeat(200) });
    if (i % 20 === 0) cache.set(key(), { id, roles: [], text: "y".repeat(100) });
  }
  setTimeout(burst, 10, cache, round + 1);
}

async function take() {
  const path = mkdtempSync("/dev/shm/cache-machine-pictures-");
  const children = [];
  const start = async (role) => {
    const child = fork(fileURLToPath(import.meta.url), [role, path]);
    children.push(child);
    await once(child, "message");
    return child;
  };
  try {
    for (let i = 0; i < 4; i++) await start("load");
    const holder = await start("hold");
    await start("wait");
    const killed = await start("load");
    const cells = await watch(path, () => {
      holder.kill("SIGSTOP");
      killed.kill("SIGKILL");
    });
    for (const [name, theme] of Object.entries(THEMES)) {
      writeFileSync(fileURLToPath(new URL(`../docs/images/top-${name}.svg`, import.meta.url)), svg(cells, theme));
    }
  } finally {
    for (const child of children) child.kill("SIGKILL");
    rmSync(path, { recursive: true });
  }
}

/** Runs `top`, and returns the cells of the screen, row by row. */
async function watch(path, disturb) {
  const { spawn } = await import("@lydell/node-pty");
  const { default: xterm } = await import("@xterm/headless");
  const screen = new xterm.Terminal({ cols: COLUMNS, rows: ROWS, allowProposedApi: true });
  const program = fileURLToPath(new URL("../dist/cli/index.js", import.meta.url));
  const pty = spawn(process.execPath, [program, "top", NAME, "--path", path], {
    name: "xterm-256color",
    cols: COLUMNS,
    rows: ROWS,
    env: { ...process.env, TERM: "xterm-256color", FORCE_COLOR: "1" },
  });
  pty.onData((data) => screen.write(data));
  await new Promise((resolve) => setTimeout(resolve, WATCHED * 0.8));
  disturb();
  await new Promise((resolve) => setTimeout(resolve, WATCHED * 0.2));
  await new Promise((resolve) => screen.write("", resolve));
  const { active } = screen.buffer;
  const cells = Array.from({ length: ROWS }, (_, row) =>
    Array.from({ length: COLUMNS }, (_, column) => {
      const cell = active.getLine(row).getCell(column);
      const colour = cell.isFgDefault() ? "text" : { 1: "red", 2: "green", 5: "magenta" }[cell.getFgColor()];
      return { text: cell.getChars() || " ", colour, bold: cell.isBold() !== 0, inverse: cell.isInverse() !== 0 };
    }),
  );
  pty.kill();
  return cells;
}

const THEMES = {
  dark: { ground: "#1e1e1e", text: "#d4d4d4", red: "#f14c4c", green: "#23b87a", magenta: "#d670d6" },
  light: { ground: "#ffffff", text: "#24292f", red: "#cd3131", green: "#0f8a3c", magenta: "#a626a4" },
};
const [WIDTH, HEIGHT, MARGIN] = [8.4, 18, 12];

function svg(rows, theme) {
  const [width, height] = [COLUMNS * WIDTH + 2 * MARGIN, ROWS * HEIGHT + 2 * MARGIN];
  const shapes = rows.flatMap((cells, row) => runs(cells).map((run) => shape(run, row, theme)));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="cache-machine top in a terminal">`,
    `<style>text{font-size:14px;font-family:ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",Consolas,monospace;white-space:pre}</style>`,
    `<rect width="100%" height="100%" rx="6" fill="${theme.ground}"/>`,
    ...shapes,
    "</svg>\n",
  ].join("\n");
}

/** Cells beside each other that look the same. Spaces without a ground are left out. */
function runs(cells) {
  const found = [];
  for (const [column, cell] of cells.entries()) {
    const last = found.at(-1);
    const same = last && ["colour", "bold", "inverse"].every((each) => last[each] === cell[each]);
    if (same) last.text += cell.text;
    else found.push({ ...cell, column });
  }
  return found.flatMap((run) => {
    if (run.inverse) return [run];
    // Each word has a place of its own, so that the columns stand below each other in every font.
    return [...run.text.matchAll(/\S+(?: \S+)*/g)].map(({ 0: text, index }) => ({
      ...run,
      text,
      column: run.column + index,
    }));
  });
}

function shape({ text, column, colour, bold, inverse }, row, theme) {
  const [x, y, length] = [column, row, text.length].map((each, i) =>
    Number((each * (i === 1 ? HEIGHT : WIDTH)).toFixed(1)),
  );
  const ground = inverse
    ? `<rect x="${x + MARGIN}" y="${y + MARGIN}" width="${length}" height="${HEIGHT}" fill="${theme[colour]}"/>`
    : "";
  const fill = inverse ? theme.ground : theme[colour];
  const escaped = text.replace(/[&<>]/g, (char) => `&#${char.charCodeAt(0)};`);
  return `${ground}<text x="${(x + MARGIN).toFixed(1)}" y="${y + MARGIN + 13.5}" textLength="${length}" lengthAdjust="spacingAndGlyphs" fill="${fill}"${bold ? ' font-weight="bold"' : ""} xml:space="preserve">${escaped}</text>`;
}

if (process.send) await participate(...process.argv.slice(2));
else await take();
