/**
 * The map: a canvas that shows tiles. It keeps only the tiles in view, so that a tile that comes into view again is requested again.
 */

import { colours, workerColour } from "./colours.mjs";
import { keyOf, MAX_LEVEL, TILE } from "./fractal.mjs";

const HOME = { x: -0.62, y: 0 };
const FLASH_MS = 700;
/** Number of tiles around the view that are rendered in advance. */
const MARGIN = 1;
const MAX_DENSITY = 2;

export class FractalMap {
  /** The view: the point in the middle of the canvas, and the zoom as log2 of (pixels per unit / pixels per tile). */
  view = { ...HOME, zoom: 1 };
  #canvas;
  #context;
  #tiles = new Map();
  /** Keys of tiles that were missing and have been requested. */
  #missing = new Set();
  #flight;
  #dirty = true;
  #moved = true;
  #read;
  #want;
  #still = matchMedia("(prefers-reduced-motion: reduce)");

  /**
   * @param read returns the bytes of a tile, or undefined; its second argument says whether a worker has just answered
   * @param want called with the missing tiles, most urgent first
   */
  constructor(canvas, read, want) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { alpha: false });
    this.#read = read;
    this.#want = want;
    new ResizeObserver(() => this.#resize()).observe(canvas);
    this.#resize();
    this.view = this.home;
    requestAnimationFrame((now) => this.#frame(now));
  }

  get home() {
    const zoom = Math.log2(Math.min(this.#canvas.width / 3.1, this.#canvas.height / 2.5) / TILE);
    return { ...HOME, zoom };
  }

  /** The number of tiles in view, and how many of them have arrived. */
  get progress() {
    const places = [...this.#placesInView(0)];
    return { all: places.length, there: places.filter((place) => this.#tiles.has(keyOf(place))).length };
  }

  /** Takes the answer for a tile: its bytes, or undefined if it has to be read from the cache. */
  arrived(place, bytes, fresh) {
    const key = keyOf(place);
    this.#missing.delete(key);
    if (!this.#isInView(place)) return;
    const pixels = bytes ?? this.#read(key, true);
    if (pixels !== undefined) this.#keep(place, pixels, fresh);
    else this.#moved = true;
  }

  /** Drops all tiles, so that all are requested again. */
  forget() {
    this.#tiles.clear();
    this.#missing.clear();
    this.#moved = this.#dirty = true;
  }

  /** Moves the view by pixels of the page. */
  pan(dx, dy) {
    this.#land();
    const scale = this.#density / this.#pixelsPerUnit;
    this.#look({ x: this.view.x + dx * scale, y: this.view.y + dy * scale, zoom: this.view.zoom });
  }

  /** Zooms around a point of the page, relative to the canvas; its middle by default. */
  zoomBy(levels, at) {
    this.#land();
    const before = this.#pixelsPerUnit;
    const zoom = clampZoom(this.view.zoom + levels);
    const after = TILE * 2 ** zoom;
    const [dx, dy] = at === undefined ? [0, 0] : [at.x * this.#density, at.y * this.#density];
    const { width, height } = this.#canvas;
    const [fromX, fromY] = at === undefined ? [0, 0] : [dx - width / 2, dy - height / 2];
    const shift = 1 / before - 1 / after;
    this.#look({ x: this.view.x + fromX * shift, y: this.view.y + fromY * shift, zoom });
  }

  /** The view at the end of the current flight, or the view itself. */
  get target() {
    return this.#flight?.to ?? this.view;
  }

  /** Moves smoothly to a view; resolves at the end, or when other input has taken over. */
  fly(to, ms) {
    this.#land();
    return new Promise((done) => {
      const from = this.view;
      const target = { ...to, zoom: clampZoom(to.zoom) };
      this.#flight = { from, to: target, start: performance.now(), ms: this.#still.matches ? 0 : ms, done };
    });
  }

  #land() {
    this.#flight?.done();
    this.#flight = undefined;
  }

  get #density() {
    return Math.min(devicePixelRatio, MAX_DENSITY);
  }

  get #pixelsPerUnit() {
    return TILE * 2 ** this.view.zoom;
  }

  get #level() {
    return Math.max(0, Math.min(MAX_LEVEL, Math.round(this.view.zoom)));
  }

  #resize() {
    const { clientWidth, clientHeight } = this.#canvas;
    this.#canvas.width = Math.max(1, Math.round(clientWidth * this.#density));
    this.#canvas.height = Math.max(1, Math.round(clientHeight * this.#density));
    this.#dirty = this.#moved = true;
  }

  #look(view) {
    const clamp = (value) => Math.max(-3, Math.min(3, value));
    this.view = { x: clamp(view.x), y: clamp(view.y), zoom: view.zoom };
    this.#moved = this.#dirty = true;
  }

  /** Places of the view's own level, `margin` tiles around it included. */
  *#placesInView(margin) {
    const level = this.#level;
    const tiles = 2 ** level;
    const { x, y } = this.view;
    const [w, h] = [this.#canvas.width / 2 / this.#pixelsPerUnit, this.#canvas.height / 2 / this.#pixelsPerUnit];
    for (let ty = Math.floor((y - h) * tiles) - margin; ty <= Math.floor((y + h) * tiles) + margin; ty++) {
      for (let tx = Math.floor((x - w) * tiles) - margin; tx <= Math.floor((x + w) * tiles) + margin; tx++) {
        yield { level, x: tx, y: ty };
      }
    }
  }

  #isInView({ level, x, y }) {
    const size = 2 ** -level;
    const [w, h] = [this.#canvas.width / 2 / this.#pixelsPerUnit, this.#canvas.height / 2 / this.#pixelsPerUnit];
    const { x: middleX, y: middleY } = this.view;
    return (
      x * size < middleX + w && (x + 1) * size > middleX - w && y * size < middleY + h && (y + 1) * size > middleY - h
    );
  }

  /** Reads the tiles that have come into view, and requests the missing ones. */
  #refresh() {
    const visible = new Set();
    const missing = [];
    for (const place of this.#placesInView(0)) {
      const key = keyOf(place);
      visible.add(key);
      if (this.#tiles.has(key)) continue;
      const bytes = this.#missing.has(key) ? undefined : this.#read(key);
      if (bytes !== undefined) this.#keep(place, bytes, false);
      else missing.push(place);
    }
    this.#missing = new Set(missing.map(keyOf));
    for (const [key, { place }] of this.#tiles) {
      // Draws tiles of other levels where tiles are missing.
      if (!visible.has(key) && (missing.length === 0 || !this.#isInView(place))) this.#tiles.delete(key);
    }
    const around = [...this.#placesInView(MARGIN)].filter((place) => !visible.has(keyOf(place)));
    this.#want([...this.#byDistance(missing), ...this.#byDistance(around)]);
  }

  #byDistance(places) {
    const tiles = 2 ** this.#level;
    const [x, y] = [this.view.x * tiles - 0.5, this.view.y * tiles - 0.5];
    return places.sort((a, b) => Math.hypot(a.x - x, a.y - y) - Math.hypot(b.x - x, b.y - y));
  }

  #keep(place, bytes, fresh) {
    const image = new OffscreenCanvas(TILE, TILE);
    const context = image.getContext("2d");
    const data = context.createImageData(TILE, TILE);
    const pixels = new Uint32Array(data.data.buffer);
    const wheel = colours().wheel;
    for (let i = 0; i < pixels.length; i++) pixels[i] = wheel[bytes[i + 1]];
    context.putImageData(data, 0, 0);
    this.#tiles.set(keyOf(place), { place, image, by: bytes[0], born: fresh ? performance.now() : -Infinity });
    this.#dirty = true;
  }

  #frame(now) {
    if (this.#flight !== undefined) this.#proceed(now);
    if (this.#moved) {
      this.#moved = false;
      this.#refresh();
    }
    if (this.#dirty) this.#draw(now);
    requestAnimationFrame((next) => this.#frame(next));
  }

  #proceed(now) {
    const { from, to, start, ms } = this.#flight;
    const t = ms === 0 ? 1 : Math.min(1, (now - start) / ms);
    const eased = t < 0.5 ? 2 * t * t : 1 - 2 * (1 - t) ** 2;
    const zoom = from.zoom + (to.zoom - from.zoom) * eased;
    // Moves along a straight line on the screen: fast where the zoom is small.
    const near = Math.abs(to.zoom - from.zoom) < 0.01;
    const [a, b, c] = [2 ** -zoom, 2 ** -to.zoom, 2 ** -from.zoom];
    const left = near ? 1 - eased : (a - b) / (c - b);
    this.#look({ x: to.x + (from.x - to.x) * left, y: to.y + (from.y - to.y) * left, zoom });
    if (t === 1) this.#land();
  }

  #draw(now) {
    const { width, height } = this.#canvas;
    const context = this.#context;
    const level = this.#level;
    this.#dirty = false;
    context.fillStyle = colours().ground;
    context.fillRect(0, 0, width, height);
    const distance = ({ place }) => Math.abs(place.level - level);
    for (const tile of [...this.#tiles.values()].sort((a, b) => distance(b) - distance(a))) {
      const size = 2 ** -tile.place.level * this.#pixelsPerUnit;
      const left = Math.round((tile.place.x * 2 ** -tile.place.level - this.view.x) * this.#pixelsPerUnit + width / 2);
      const top = Math.round((tile.place.y * 2 ** -tile.place.level - this.view.y) * this.#pixelsPerUnit + height / 2);
      const right = Math.round(
        ((tile.place.x + 1) * 2 ** -tile.place.level - this.view.x) * this.#pixelsPerUnit + width / 2,
      );
      const bottom = Math.round(
        ((tile.place.y + 1) * 2 ** -tile.place.level - this.view.y) * this.#pixelsPerUnit + height / 2,
      );
      context.imageSmoothingEnabled = size !== TILE;
      context.drawImage(tile.image, left, top, right - left, bottom - top);
      const age = (now - tile.born) / FLASH_MS;
      if (age < 1 && !this.#still.matches) {
        this.#dirty = true;
        context.globalAlpha = 0.5 * (1 - Math.max(0, age)) ** 2;
        context.fillStyle = workerColour(tile.by);
        context.fillRect(left, top, right - left, bottom - top);
        context.globalAlpha = 1;
      }
    }
  }
}

const clampZoom = (zoom) => Math.max(-1, Math.min(MAX_LEVEL - 1, zoom));
