/** Draws the inside of caches: each segment as a cell that fills from below, and the index as a strip of bars. */

import { colours } from "./colours.mjs";

/** The size of a cell, and the distance between two, in pixels of the page. */
const CELL = 11;
const STEP = 14;
const GROUP_GAP = 10;
const FLASH_MS = 900;

/** Draws the segments of all caches. */
export class MemoryPicture {
  #canvas;
  #context;
  /** The generation of each segment, and the time of its last change. */
  #lives = new Map();

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
  }

  /** @param inspections the result of `inspect()` for each cache, by name */
  draw(inspections) {
    const columns = Math.max(1, Math.floor((this.#canvas.clientWidth + STEP - CELL) / STEP));
    const heights = [...inspections.values()].map(({ segments }) => Math.ceil(segments.length / columns) * STEP);
    const height = heights.reduce((sum, each) => sum + each, 0) + GROUP_GAP * (heights.length - 1);
    resize(this.#canvas, this.#context, height);
    const now = performance.now();
    let top = 0;
    let each = 0;
    for (const [name, inspection] of inspections) {
      for (const [i, segment] of inspection.segments.entries()) {
        const [x, y] = [(i % columns) * STEP, top + Math.floor(i / columns) * STEP];
        this.#cell(x, y, segment, inspection.segmentBytes, this.#flash(`${name} ${i}`, segment.generation, now));
      }
      top += heights[each++] + GROUP_GAP;
    }
  }

  /** 1 when a segment has just been emptied, falling to 0. */
  #flash(id, generation, now) {
    const life = this.#lives.get(id);
    if (life?.generation !== generation) {
      this.#lives.set(id, { generation, since: life === undefined ? -Infinity : now });
    }
    return Math.max(0, 1 - (now - this.#lives.get(id).since) / FLASH_MS);
  }

  #cell(x, y, segment, bytes, flash) {
    const context = this.#context;
    const { empty, ink, reclaim, ...classes } = colours();
    context.fillStyle = empty;
    context.beginPath();
    context.roundRect(x, y, CELL, CELL, 2);
    context.fill();
    const colour = classes[segment.class];
    const bar = (share, alpha) => {
      const height = Math.round(share * CELL * 2) / 2;
      context.globalAlpha = alpha;
      context.fillStyle = colour;
      context.beginPath();
      context.roundRect(x, y + CELL - height, CELL, height, height < CELL ? [0, 0, 2, 2] : 2);
      context.fill();
      context.globalAlpha = 1;
    };
    if (segment.state !== "free") {
      bar(segment.used / bytes, 0.35);
      bar(segment.live / bytes, 1);
    }
    if (segment.state === "open" || segment.state === "reclaim") {
      context.strokeStyle = segment.state === "open" ? ink : reclaim;
      context.lineWidth = 1.5;
      context.beginPath();
      context.roundRect(x + 0.75, y + 0.75, CELL - 1.5, CELL - 1.5, 1.5);
      context.stroke();
    }
    if (flash > 0) {
      context.globalAlpha = flash;
      context.fillStyle = reclaim;
      context.beginPath();
      context.roundRect(x, y, CELL, CELL, 2);
      context.fill();
      context.globalAlpha = 1;
    }
  }
}

/** Draws bars for the parts of the index: live entries, and in a lighter colour ghosts of evicted ones. */
export function drawIndex(canvas, inspections) {
  const context = canvas.getContext("2d");
  resize(canvas, context, canvas.clientHeight);
  const parts = inspections.flatMap(({ index, indexPartEntries }) =>
    index.map(({ live, ghosts }) => ({ live: live / indexPartEntries, ghosts: ghosts / indexPartEntries })),
  );
  const { small, line } = colours();
  const height = canvas.clientHeight - 1;
  const bars = Math.min(parts.length, Math.floor(canvas.clientWidth / 3));
  const width = canvas.clientWidth / bars;
  // The index has room for many small entries, and tiles are large: so the scale ends at the highest bar.
  const full = Math.max(0.01, ...parts.map(({ live, ghosts }) => live + ghosts));
  for (let i = 0; i < bars; i++) {
    const some = parts.slice(Math.floor((i * parts.length) / bars), Math.floor(((i + 1) * parts.length) / bars));
    const mean = (of) => some.reduce((sum, part) => sum + of(part), 0) / some.length;
    const live = (mean((part) => part.live) / full) * height;
    const ghosts = (mean((part) => part.ghosts) / full) * height;
    context.fillStyle = small;
    context.fillRect(i * width, height - live, width - 1, live);
    context.globalAlpha = 0.35;
    context.fillRect(i * width, height - live - ghosts, width - 1, ghosts);
    context.globalAlpha = 1;
  }
  context.fillStyle = line;
  context.fillRect(0, height, canvas.clientWidth, 1);
}

/** Sets the height of a canvas in pixels of the page, adapts it to the screen's density, and clears it. */
function resize(canvas, context, height) {
  const density = devicePixelRatio;
  const [w, h] = [Math.round(canvas.clientWidth * density), Math.round(Math.max(height, 1) * density)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.height = `${Math.max(height, 1)}px`;
  }
  context.setTransform(density, 0, 0, density, 0, 0);
  context.clearRect(0, 0, canvas.clientWidth, height);
}
