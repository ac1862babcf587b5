/** Moves the map by mouse, touch, keys and buttons, and by the tour, which any other input ends. */

const KEY_PIXELS = 96;
const FLY_MS = 350;
const STOPS = [
  { x: -0.743643, y: 0.131826, zoom: 10 },
  { x: 0.2925, y: 0.0149, zoom: 8.5 },
  { x: -1.25066, y: 0.02012, zoom: 9 },
  { x: -0.1528, y: 1.0397, zoom: 9 },
];

export function steer(map, find) {
  const canvas = find("map");
  const pointers = new Map();
  let touring = false;

  const takeOver = () => {
    touring = false;
    find("tour").setAttribute("aria-pressed", "false");
  };
  const zoom = (levels) => {
    takeOver();
    // Zooms to whole levels, at which a pixel of a tile is a pixel of the screen.
    void map.fly({ ...map.target, zoom: Math.round(map.target.zoom + levels) }, FLY_MS);
  };
  const home = () => {
    takeOver();
    void map.fly(map.home, 3 * FLY_MS);
  };

  canvas.addEventListener("pointerdown", (event) => {
    takeOver();
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (before === undefined) return;
    const other = [...pointers.values()].find(({ pointerId }) => pointerId !== event.pointerId);
    map.pan((before.clientX - event.clientX) / pointers.size, (before.clientY - event.clientY) / pointers.size);
    if (other !== undefined) {
      const distance = (from) => Math.hypot(from.clientX - other.clientX, from.clientY - other.clientY);
      const at = { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 };
      map.zoomBy(Math.log2(distance(event) / distance(before)), within(canvas, at));
    }
    pointers.set(event.pointerId, event);
  });
  for (const type of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(type, ({ pointerId }) => pointers.delete(pointerId));
  }
  canvas.addEventListener("dblclick", (event) => map.zoomBy(1, within(canvas, event)));
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      takeOver();
      const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
      map.zoomBy(Math.max(-1, Math.min(1, (-event.deltaY * lines) / 240)), within(canvas, event));
    },
    { passive: false },
  );
  canvas.addEventListener("keydown", (event) => {
    const act = {
      ArrowLeft: () => map.pan(-KEY_PIXELS, 0),
      ArrowRight: () => map.pan(KEY_PIXELS, 0),
      ArrowUp: () => map.pan(0, -KEY_PIXELS),
      ArrowDown: () => map.pan(0, KEY_PIXELS),
      "+": () => zoom(1),
      "=": () => zoom(1),
      "-": () => zoom(-1),
      0: home,
    }[event.key];
    if (act === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    takeOver();
    act();
  });
  find("zoom-in").addEventListener("click", () => zoom(1));
  find("zoom-out").addEventListener("click", () => zoom(-1));
  find("home").addEventListener("click", home);
  find("tour").addEventListener("click", async () => {
    if (touring) return takeOver();
    touring = true;
    find("tour").setAttribute("aria-pressed", "true");
    for (let stop = 0; touring; stop++) {
      for (const place of [STOPS[stop % STOPS.length], map.home]) {
        if (!touring) break;
        await map.fly(place, 700 * Math.abs(place.zoom - map.view.zoom) + 500);
        await new Promise((resolve) => setTimeout(resolve, 1200));
      }
    }
  });
}

/** The position of an event relative to the canvas. */
function within(canvas, { clientX, clientY }) {
  const { left, top } = canvas.getBoundingClientRect();
  return { x: clientX - left, y: clientY - top };
}
