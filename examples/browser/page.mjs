/** The page: connects map, workers, caches and pictures, and shows the numbers. */

import { Caches } from "./caches.mjs";
import { onColoursChange, workerColour } from "./colours.mjs";
import { keyOf } from "./fractal.mjs";
import { steer } from "./input.mjs";
import { FractalMap } from "./map.mjs";
import { drawIndex, MemoryPicture } from "./memory.mjs";
import { Pool } from "./pool.mjs";

const FIRST_WORKERS = 3;
const MAX_WORKERS = 8;
const PICTURE_MS = 100;
const NUMBERS_MS = 500;
/** How long the page waits for the seat of a terminated worker. Browsers let a busy worker run on for some seconds. */
const PATIENCE_MS = 15_000;

const find = (id) => document.getElementById(id);
const rounded = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const compact = (value) => rounded.format(Math.round(value));
const percent = (share) => `${Math.floor(100 * share)} %`;
const mib = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

try {
  start(new Caches(16));
} catch (error) {
  if (error.code !== "ERR_UNSUPPORTED") throw error;
  find("error").textContent = `${error.code}: ${error.message}`;
  find("not-isolated").hidden = false;
}

function start(caches) {
  find("demo").hidden = false;
  /** Tiles that were found, rendered, and waited for, since the caches were created or cleared. */
  let score;
  let pageOperations = 0;
  const reset = () => {
    score = { hit: 0, loaded: 0, joined: 0 };
  };
  reset();

  const pool = new Pool(
    (number) => caches.of(number, pool.members.size),
    (place, { outcome, by, bytes }, isFirst) => {
      score[outcome]++;
      rendered(keyOf(place), by);
      if (isFirst) map.arrived(place, bytes, outcome !== "hit");
    },
  );
  const map = new FractalMap(find("map"), read, (places) => pool.want(places));
  const picture = new MemoryPicture(find("memory"));
  /** Number of entries that the index has room for. */
  let room = 0;

  function read(key, isAnswer = false) {
    if (!caches.isShared) return undefined;
    pageOperations++;
    const bytes = caches.read(key);
    if (bytes !== undefined && !isAnswer) score.hit++;
    return bytes;
  }

  function say(text) {
    find("news").textContent = text;
  }

  // ---- Workers -------------------------------------------------------------------------------------------------------

  const rows = new Map();

  function add() {
    const { number } = pool.add();
    const row = find("worker").content.firstElementChild.cloneNode(true);
    find("workers").append(row);
    row.style.setProperty("--colour", workerColour(number));
    row.dataset.worker = number;
    row.querySelector("span").textContent = `Worker ${number}`;
    const button = row.querySelector("button");
    button.setAttribute("aria-label", `Terminate worker ${number}`);
    button.addEventListener("click", () => terminate(number));
    rows.set(number, { row, operations: 0 });
    showLimits();
  }

  /** The worker that was terminated last, and what became of its work and of its seat. */
  let end;

  function terminate(number) {
    const key = pool.terminate(number);
    caches.forget(number);
    rows.get(number).row.remove();
    rows.delete(number);
    showLimits();
    const mine = (end = { number, key, by: undefined, ms: undefined });
    sayEnd();
    const since = performance.now();
    const poll = () => {
      if (!caches.isShared || end !== mine) return;
      const ms = performance.now() - since;
      const [cache] = caches.all.values();
      // Workers that have just been added may not have joined yet.
      if (cache.stats().participants <= 1 + pool.members.size) {
        end.ms = ms;
        sayEnd();
      } else if (ms < PATIENCE_MS) requestAnimationFrame(poll);
    };
    poll();
  }

  /** A tile is there; it may be the one that a terminated worker had begun. */
  function rendered(key, by) {
    if (end?.key !== key || end.by !== undefined) return;
    end.by = by;
    sayEnd();
  }

  function sayEnd() {
    const { number, key, by, ms } = end;
    const busy = key === undefined ? "" : ` while it rendered ${key}`;
    // Browsers let a worker go on for a moment.
    const whose = by === number ? "It still finished" : `Worker ${by} has rendered`;
    const work = by === undefined ? "" : ` ${whose} that tile.`;
    const seat = ms === undefined ? "" : ` Its seat was free again after ${Math.round(ms)} ms.`;
    say(`Worker ${number} was terminated${busy}.${seat}${work}`);
  }

  function showLimits() {
    find("add").disabled = pool.members.size >= MAX_WORKERS;
    for (const { row } of rows.values()) row.querySelector("button").disabled = pool.members.size === 1;
  }

  // ---- Controls -----------------------------------------------------------------------------------------------------

  /** Starts again with new or empty caches. */
  function begin(text) {
    end = undefined;
    reset();
    pool.rejoin();
    map.forget();
    say(text);
  }

  find("add").addEventListener("click", add);
  find("clear").addEventListener("click", () => {
    caches.clear();
    begin("Everything was removed, in one step.");
  });
  find("read").addEventListener("click", ({ currentTarget }) => {
    const isOn = currentTarget.getAttribute("aria-pressed") !== "true";
    currentTarget.setAttribute("aria-pressed", isOn);
    pool.read(isOn ? caches.keys : []);
    say(isOn ? "Workers with nothing to render read tiles of 9 kB at random." : "");
  });
  for (const input of document.querySelectorAll("input[name=size]")) {
    input.addEventListener("change", () => {
      caches.resize(Number(input.value));
      begin(
        caches.isShared
          ? `A new cache of ${input.value} MiB, with the entries of the old one that fit.`
          : `${input.value} MiB, divided among the workers.`,
      );
    });
  }
  for (const input of document.querySelectorAll("input[name=sharing]")) {
    input.addEventListener("change", () => {
      caches.share(input.value === "shared");
      begin(
        caches.isShared
          ? "One cache for the page and all workers."
          : "Each worker has a cache of its own, and finds only what it has rendered itself.",
      );
    });
  }
  steer(map, find);
  onColoursChange(() => map.forget());

  // ---- Output --------------------------------------------------------------------------------------------------------

  function showPicture() {
    const all = caches.all;
    const inspections = new Map([...all].map(([name, cache]) => [name, cache.inspect()]));
    if (inspections.size > 0) {
      picture.draw(inspections);
      drawIndex(find("index"), [...inspections.values()]);
      room = [...inspections.values()].reduce((sum, each) => sum + each.index.length * each.indexPartEntries, 0);
    }
    const { all: tiles, there } = map.progress;
    find("progress").textContent = there === tiles ? `${tiles} tiles` : `${there} of ${tiles} tiles`;
    for (const [number, { row }] of rows) {
      row.querySelector("small").textContent = pool.members.get(number)?.rendering ?? "";
    }
  }

  let last = { at: performance.now(), page: 0 };
  function showNumbers() {
    const now = performance.now();
    const seconds = (now - last.at) / 1000;
    let rate = (pageOperations - last.page) / seconds;
    last = { at: now, page: pageOperations };
    for (const [number, shown] of rows) {
      const { operations, rendered, joined, found, others } = pool.members.get(number);
      const asked = rendered + found;
      const own = (operations - shown.operations) / seconds;
      shown.operations = operations;
      rate += own;
      const [, ...cells] = shown.row.cells;
      cells[0].textContent = rendered.toLocaleString("en");
      cells[1].textContent = joined.toLocaleString("en");
      cells[2].textContent = asked === 0 ? "–" : percent(found / asked);
      cells[2].title = `${found} of ${asked} were there, ${others} of them rendered by others`;
      cells[3].textContent = compact(own);
    }
    const stats = [...caches.all.values()].map((cache) => ({ ...cache.stats(), ...cache.census() }));
    const sum = (of) => stats.reduce((total, each) => total + of(each), 0);
    const asked = score.hit + score.loaded;
    show("hit-ratio", asked === 0 ? "–" : percent(score.hit / asked), score.hit / asked);
    show("joined", compact(score.joined), score.joined);
    show("rate", compact(rate), rate);
    show(
      "entries",
      compact(sum(({ entries }) => entries)),
      sum(({ entries }) => entries),
    );
    show(
      "evictions",
      compact(sum(({ evictions }) => evictions)),
      sum(({ evictions }) => evictions),
    );
    find("used").textContent = `${mib(sum(({ bytes }) => bytes))} of ${mib(sum(({ capacity }) => capacity))}`;
    find("index-used").textContent =
      `${sum(({ entries }) => entries).toLocaleString("en")} of ${compact(room)} entries`;
    find("participants").textContent = caches.isShared
      ? `${stats[0].participants} participants, with the page`
      : `${caches.all.size} caches`;
  }

  /** Shows a number as readable text, and stores the exact value for tests. */
  function show(id, text, value) {
    find(id).textContent = text;
    find(id).dataset.value = value;
  }

  for (let i = 0; i < FIRST_WORKERS; i++) add();
  setInterval(showPicture, PICTURE_MS);
  setInterval(showNumbers, NUMBERS_MS);
  showPicture();
}
