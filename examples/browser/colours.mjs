/** The colours for canvases: those of the style sheet, and the colour wheels of the fractal for the light and the dark theme. */

const dark = matchMedia("(prefers-color-scheme: dark)");
let current;
dark.addEventListener("change", () => {
  current = undefined;
});

/** Calls back when the theme changes between light and dark. */
export function onColoursChange(callback) {
  dark.addEventListener("change", callback);
}

/** The colour of a worker; there are eight, which repeat. */
export function workerColour(number) {
  return colours().workers[(number - 1) % 8];
}

export function colours() {
  if (current !== undefined) return current;
  const style = getComputedStyle(document.documentElement);
  const variable = (name) => style.getPropertyValue(`--${name}`).trim();
  current = {
    ground: variable("ground"),
    line: variable("line"),
    ink: variable("ink"),
    empty: variable("empty"),
    small: variable("small"),
    main: variable("main"),
    reclaim: variable("accent"),
    workers: Array.from({ length: 8 }, (_, i) => variable(`worker-${i + 1}`)),
    wheel: wheel(dark.matches ? DARK : LIGHT),
  };
  return current;
}

/** The colour of the set itself, then the stops of the colour wheel. */
const LIGHT = ["#23303f", "#f3efe4", "#d9dccb", "#9db9ae", "#4f8790", "#2c5a72", "#7c8b8d", "#d8a36a", "#f0d9b0"];
const DARK = ["#0b0e12", "#8d4a35", "#2c2330", "#10202e", "#17405a", "#2f7a8a", "#8fb9a4", "#efe3bd", "#dc9c56"];

/** The pixels for the bytes of a tile: 0 for the set, then 255 colours around the wheel. */
function wheel([set, ...stops]) {
  const pixel = ([r, g, b]) => (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
  const pixels = new Uint32Array(256);
  pixels[0] = pixel(parse(set));
  for (let i = 0; i < 255; i++) {
    const place = (i / 255) * stops.length;
    const [from, to] = [parse(stops[Math.floor(place)]), parse(stops[Math.ceil(place) % stops.length])];
    pixels[i + 1] = pixel(from.map((value, channel) => Math.round(value + (to[channel] - value) * (place % 1))));
  }
  return pixels;
}

const parse = (colour) => [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16));
