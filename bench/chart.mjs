/**
 * Draws the results of a run as an SVG: bars of time per operation on a logarithmic scale, fastest first. Its colours follow
 * the reader's light or dark theme.
 */

import { ADAPTERS, labelOf } from "./adapters.mjs";
import { time } from "./report.mjs";

const WIDTH = 860;
const GUTTER = 290;
const RIGHT = 90;
const ROW = 22;
const SERVERS = ["sqlite", "sqlite-builtin", "redis", "memcached", "ipc"];
/** The panels and the adapters in each; variants that differ little appear only in the report. */
const PANELS = [
  {
    data: "s100",
    workload: "get",
    title: "get, string of 100 B",
    shown: ["near", "far", "threads", "map", "lru", "lmdb", "sharedmap", "node-shared-cache", ...SERVERS],
  },
  {
    data: "object",
    workload: "get",
    title: "get, nested object of 300 B",
    shown: ["near", "frozen", "map", "lru", "lmdb-msgpack", "lmdb-cache", "sharedmap", "node-shared-cache", ...SERVERS],
  },
  {
    data: "s100",
    workload: "set",
    title: "set, string of 100 B",
    shown: ["near", "threads", "map", "lru", "lmdb", "lmdb-batched", "sharedmap", "node-shared-cache", ...SERVERS],
  },
];

const STYLE = `
  text { font: 13px system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 14px }
  .quiet, .tick { fill: #656d76 } .tick { font-size: 11px } .ours { font-weight: 600 }
  .value { paint-order: stroke; stroke: #ffffff; stroke-width: 4px; stroke-linejoin: round }
  .paper { fill: #ffffff } .grid { stroke: #d8dee4; stroke-width: 1 }
  .bar-ours { fill: #0969da } .bar-shared { fill: #8c959f } .bar-private { fill: #d0d7de }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .value { stroke: #0d1117 } .quiet, .tick { fill: #8d96a0 } .paper { fill: #0d1117 } .grid { stroke: #21262d }
    .bar-ours { fill: #4493f8 } .bar-shared { fill: #6e7681 } .bar-private { fill: #3d444d }
  }`;

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

const kind = (id) => {
  if (ADAPTERS[id].ours) return "ours";
  return ADAPTERS[id].reach === "private" ? "private" : "shared";
};

export function chart(results) {
  const panels = PANELS.map((panel) => {
    const measured = Object.entries(results.speed?.[panel.data]?.[panel.workload] ?? {});
    return { ...panel, measured: measured.filter(([id]) => panel.shown.includes(id)) };
  }).filter(({ measured }) => measured.length > 0);
  const all = panels.flatMap(({ measured }) => measured.map(([, { ns }]) => ns));
  const low = Math.floor(Math.log10(Math.min(...all)) - 0.15);
  const high = Math.max(low + 1, Math.log10(Math.max(...all)) + 0.02);
  const x = (ns) => GUTTER + ((Math.log10(ns) - low) / (high - low)) * (WIDTH - GUTTER - RIGHT);
  const parts = [];
  let y = 54;
  for (const { measured, title, data } of panels) {
    const entries = measured.toSorted(([, a], [, b]) => a.ns - b.ns);
    parts.push(`<text class="title" x="20" y="${y}">${escaped(title)}</text>`);
    y += 10;
    const bottom = y + entries.length * ROW + 2;
    for (let power = low; power <= high; power++) {
      const at = x(10 ** power).toFixed(1);
      parts.push(`<line class="grid" x1="${at}" x2="${at}" y1="${y}" y2="${bottom}"/>`);
      parts.push(`<text class="tick" x="${at}" y="${bottom + 13}" text-anchor="middle">${tick(power)}</text>`);
    }
    for (const [id, { ns }] of entries) {
      const end = x(ns);
      const own = kind(id) === "ours" ? " ours" : "";
      parts.push(
        `<text class="name${own}" x="${GUTTER - 10}" y="${y + 16}" text-anchor="end">${escaped(labelOf(id, data))}</text>`,
      );
      parts.push(
        `<rect class="bar-${kind(id)}" x="${GUTTER}" y="${y + 4}" width="${(end - GUTTER).toFixed(1)}" height="${ROW - 7}" rx="2"/>`,
      );
      parts.push(`<text class="value${own}" x="${(end + 7).toFixed(1)}" y="${y + 16}">${time(ns)}</text>`);
      y += ROW;
    }
    y = bottom + 48;
  }
  const { node, processor, cores } = results.machine;
  const legend = [
    ["ours", "cache-machine"],
    ["shared", "shared with other threads or processes"],
    ["private", "private to one thread"],
  ];
  let left = 20;
  const head = legend.map(([name, text]) => {
    const item = `<rect class="bar-${name}" x="${left}" y="14" width="12" height="12" rx="2"/><text class="quiet" x="${left + 18}" y="25">${text}</text>`;
    left += 46 + text.length * 6.1;
    return item;
  });
  const note = `Time per operation, logarithmic; shorter is faster. 100,000 keys, zipfian; Node.js ${node.slice(1)}, ${cores} cores of ${processor}.`;
  const height = y + 2;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="Time per operation">
<style>${STYLE}
</style>
<rect class="paper" width="${WIDTH}" height="${height}" rx="6"/>
${[...head, ...parts].join("\n")}
<text class="tick" x="20" y="${height - 14}">${escaped(note)}</text>
</svg>
`;
}

/** Places of the panels of {@link curves}, and of the curve within its panel. */
const PANEL = { width: WIDTH / 2, height: 262, left: 62, right: 122, top: 34, bottom: 44 };

/**
 * Draws curves of time per operation, four panels of them, on logarithmic scales.
 *
 * @param panels `{ title, lines: [{ id, points: [[x, ns], …] }, …] }`; points without a time are left out
 */
export function curves(panels, note) {
  const all = panels.flatMap(({ lines }) => lines.flatMap(({ points }) => points)).filter(([, ns]) => ns !== undefined);
  const [low, high] = [Math.min, Math.max].map((most) => Math.log10(most(...all.map(([, ns]) => ns))));
  const [first, last] = [Math.min, Math.max].map((most) => Math.log10(most(...all.map(([x]) => x))));
  const [bottom, top] = [Math.floor(low * 2) / 2, Math.ceil(high * 2) / 2];
  const parts = panels.flatMap(({ title, lines }, number) => {
    const left = (number % 2) * PANEL.width + PANEL.left;
    const above = 10 + Math.floor(number / 2) * PANEL.height + PANEL.top;
    const [across, down] = [PANEL.width - PANEL.left - PANEL.right, PANEL.height - PANEL.top - PANEL.bottom];
    const atX = (value) => (left + ((Math.log10(value) - first) / (last - first || 1)) * across).toFixed(1);
    const atY = (ns) => above + down - ((Math.log10(ns) - bottom) / (top - bottom)) * down;
    const own = [`<text class="title" x="${left}" y="${above - 12}">${escaped(title)}</text>`];
    for (let power = Math.ceil(bottom); power <= top; power++) {
      const y = atY(10 ** power).toFixed(1);
      own.push(`<line class="grid" x1="${left}" x2="${left + across}" y1="${y}" y2="${y}"/>`);
      own.push(`<text class="tick" x="${left - 8}" y="${Number(y) + 4}" text-anchor="end">${tick(power)}</text>`);
    }
    for (let power = Math.ceil(first); power <= last; power++) {
      const x = atX(10 ** power);
      own.push(`<line class="grid" x1="${x}" x2="${x}" y1="${above}" y2="${above + down}"/>`);
      own.push(`<text class="tick" x="${x}" y="${above + down + 16}" text-anchor="middle">${thousands(power)}</text>`);
    }
    const drawn = lines.map((line) => ({ ...line, points: line.points.filter(([, ns]) => ns !== undefined) }));
    const ends = drawn
      .filter(({ points }) => points.length > 0)
      .map(({ id, points }) => ({ id, y: atY(points.at(-1)[1]) }));
    // Labels that would overlap move down.
    ends.sort((a, b) => a.y - b.y);
    for (let i = 1; i < ends.length; i++) ends[i].y = Math.max(ends[i].y, ends[i - 1].y + 14);
    for (const { id, points } of drawn) {
      const path = points.map(([x, ns]) => `${atX(x)},${atY(ns).toFixed(1)}`).join(" ");
      own.push(`<polyline class="line line-${id}" points="${path}"/>`);
      for (const [x, ns] of points)
        own.push(`<circle class="dot-${id}" cx="${atX(x)}" cy="${atY(ns).toFixed(1)}" r="2.5"/>`);
    }
    for (const { id, y } of ends) {
      const name = SHORT[id] ?? ADAPTERS[id].label;
      own.push(`<text class="name-${id}" x="${left + across + 8}" y="${(y + 4).toFixed(1)}">${escaped(name)}</text>`);
    }
    return own;
  });
  const height = 10 + Math.ceil(panels.length / 2) * PANEL.height + 30;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${escaped(note)}">
<style>${STYLE}${CURVES}
</style>
<rect class="paper" width="${WIDTH}" height="${height}" rx="6"/>
${parts.join("\n")}
<text class="tick" x="20" y="${height - 14}">${escaped(note)}</text>
</svg>
`;
}

const SHORT = { near: "cache-machine", far: "near cache off", lmdb: "lmdb" };
const CURVES = `
  .line { fill: none; stroke-width: 2; stroke-linejoin: round }
  .line-near { stroke: #0969da } .line-far { stroke: #54aeff } .line-lru { stroke: #8c959f } .line-lmdb { stroke: #bc4c00 }
  .dot-near { fill: #0969da } .dot-far { fill: #54aeff } .dot-lru { fill: #8c959f } .dot-lmdb { fill: #bc4c00 }
  .name-near { fill: #0969da; font-weight: 600 } .name-far { fill: #1f7bd0 } .name-lru { fill: #656d76 } .name-lmdb { fill: #bc4c00 }
  @media (prefers-color-scheme: dark) {
    .line-near { stroke: #4493f8 } .dot-near, .name-near { fill: #4493f8 } .line-lmdb { stroke: #f0883e } .dot-lmdb, .name-lmdb { fill: #f0883e }
    .name-far { fill: #79c0ff } .line-far { stroke: #79c0ff } .dot-far { fill: #79c0ff } .name-lru { fill: #8d96a0 }
  }`;

const thousands = (power) => ["1", "10", "100", "1k", "10k", "100k", "1M", "10M"][power] ?? `10^${power}`;

const tick = (power) =>
  ["1 ns", "10 ns", "100 ns", "1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms"][power] ?? `10^${power} ns`;
