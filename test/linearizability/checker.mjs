/**
 * Checks linearizability: whether there is an order of the operations, each at a moment between its call and its return, that
 * explains all results.
 *
 * The checker walks the history of one key in the order of stamps, with the set of all configurations that are still possible. A
 * configuration says which of the open operations have taken effect, and what the key holds then. This is the search of Wing & Gong
 * in the just-in-time form of Lowe, "Testing for linearizability", with remembered configurations. When an operation returns, only
 * the configurations in which it has taken effect remain; if none remains, no order explains its result. Keys are independent of
 * each other, so all keys together are linearizable if each key is (Herlihy & Wing).
 *
 * A key is `ABSENT` or holds a value. Every stored value has a number of its own, and counters are changed by random amounts, so the
 * same value means the same state. A *tight* cache may evict a value at any moment, a *roomy* one never does.
 */
import { ABSENT, BOUND, BUSY, LIMIT, NO, PENDING, YES } from "./recorder.mjs";

/** The unknown state of the key before a window of the history. */
const ANY = Symbol("anything");
/** Maximum number of configurations; more would only test this checker. */
const MAX_CONFIGURATIONS = 100_000;
const READS = new Set(["get", "getEntry", "getMany"]);
const WINDOW = 24;

/**
 * @param history events of one key, as `Log.read` gives them
 * @param model.roomy whether values are never evicted
 * @param model.counter whether the key holds a counter
 * @returns undefined if an order explains the history, otherwise why none does: `{ why, window, lines }`
 */
export function contradiction(history, model = {}) {
  const operations = prepare(history, model);
  const odd = impossibleRead(operations, model) ?? impossibleVersion(operations, model);
  if (odd !== undefined) return told(odd.why, around(operations, odd.operation), [odd.operation]);
  const failed = search(operations, new Set([ABSENT]), model);
  if (failed === undefined) return undefined;
  const window = smallest(operations, failed.operation, model);
  const { states } = search(window, new Set([ANY]), model) ?? failed;
  const held = [...states].map((state) => (state === ANY ? "anything" : name(state))).join(" or ");
  return told(
    `no order explains this ${failed.operation.op}; just before, the key can only have held ${held}`,
    window,
    [failed.operation],
  );
}

/** Leaves out operations without effect, and adds to each operation what its rules depend on. */
function prepare(history, { counter, roomy }) {
  const operations = history.filter(
    (event) => event.outcome !== BUSY && (event.outcome !== PENDING || !(READS.has(event.op) || event.op === "touch")),
  );
  operations.sort((a, b) => a.invoked - b.invoked);
  // A writer that died while counting leaves an odd version, which the next change makes even without changing the number.
  const cutOff = operations
    .filter(({ op, outcome }) => counter && COUNTS.has(op) && outcome === PENDING)
    .reduce((first, { invoked }) => Math.min(first, invoked), Infinity);
  const clears = operations.filter(({ op }) => op === "clear");
  for (const operation of operations) {
    operation.unsettled = counter && (cutOff < operation.returned || operation.version % 2 === 1);
    // A value that is stored during a clear may be gone at once.
    operation.struck =
      roomy && clears.some((clear) => clear.invoked < operation.returned && operation.invoked < clear.returned);
  }
  return operations;
}

/** Finds a value that was read before anybody stored it; a clearer reason than "no order". */
function impossibleRead(operations, { counter }) {
  if (counter) return undefined;
  const stored = new Map();
  for (const { op, argument, invoked } of operations) if (STORES.has(op)) stored.set(argument, invoked);
  const operation = operations.find(({ result, returned }) => result !== ABSENT && !(stored.get(result) < returned));
  return operation && { operation, why: `nobody had stored ${name(operation.result)} when it was read` };
}

/** Finds a version that belongs to two values, or a value with two versions. */
function impossibleVersion(operations, { counter }) {
  const values = new Map();
  const versions = new Map();
  for (const operation of operations) {
    const { op, result, version } = operation;
    if (op !== "getEntry" || result === ABSENT || version % 2 === 1) continue;
    if (values.has(version) && values.get(version) !== result) {
      return { operation, why: `version ${version} was ${name(values.get(version))} and is ${name(result)}` };
    }
    if (!counter && versions.has(result) && versions.get(result) !== version) {
      return { operation, why: `${name(result)} had version ${versions.get(result)} and has ${version}` };
    }
    values.set(version, result);
    versions.set(result, version);
  }
  return undefined;
}

/** Operations that change a number or a limit in place. */
const COUNTS = new Set(["increment", "incrementWithin", "rateLimit"]);
const STORES = new Set(["set", "setMany", "add", "replace", "compareAndSet", "update"]);

/**
 * The states that the key may have after `operation`, if it had `state` before; empty if the operation cannot have had its result.
 * An eviction is assumed only where it is needed, because a key with a value may still turn out to be absent later.
 */
function after(state, operation, { roomy }) {
  const { op, outcome, argument, expected, result } = operation;
  const any = state === ANY;
  const absent = state === ABSENT;
  const mayBeAbsent = absent || any || !roomy;
  const mayBePresent = !absent;
  const store = operation.struck ? [argument, ABSENT] : [argument];
  const when = (holds, states) => (holds ? states : []);
  switch (op) {
    case "get":
    case "getEntry":
    case "getMany":
      if (outcome === YES) return when(state === result || any, [result]);
      return when(mayBeAbsent, [ABSENT]);
    case "set":
    case "setMany":
      return store;
    case "delete":
      if (outcome === PENDING) return [ABSENT];
      return when(outcome === YES ? mayBePresent : mayBeAbsent, [ABSENT]);
    case "take":
      if (outcome === PENDING) return [ABSENT];
      if (outcome === YES) return when(state === result || any, [ABSENT]);
      return when(mayBeAbsent, [ABSENT]);
    case "clear":
      return [ABSENT];
    case "add":
      if (outcome === NO) return when(mayBePresent, [state]);
      return when(mayBeAbsent, store);
    case "replace":
      if (outcome === NO) return when(mayBeAbsent, [ABSENT]);
      return when(mayBePresent, store);
    case "touch":
      return outcome === YES ? when(mayBePresent, [state]) : when(mayBeAbsent, [ABSENT]);
    case "update":
      // A pending update did not record which value it replaced.
      if (outcome === PENDING) return store;
      return when(any || state === expected || (expected === ABSENT && mayBeAbsent), store);
    case "compareAndSet": {
      const same = state === expected || (expected === ABSENT && mayBeAbsent);
      if (outcome !== NO) return when(any || same, store);
      if (any || state !== expected || operation.unsettled) return [state];
      return when(!roomy && !absent, [ABSENT]);
    }
    case "compareAndDelete":
      if (outcome !== NO) return when(any || state === expected, [ABSENT]);
      if (any || state !== expected || operation.unsettled) return [state];
      return when(!roomy, [ABSENT]);
    case "deleteMany":
      // It only tells how many entries of all its keys there were.
      return [ABSENT];
    case "increment": {
      if (any) return outcome === PENDING ? [ANY] : [result];
      const sums = absent ? [] : [state + argument];
      if (mayBeAbsent) sums.push(expected + argument);
      const possible = outcome === PENDING ? sums : sums.filter((sum) => sum === result).slice(0, 1);
      return operation.struck && possible.length > 0 ? [...possible, ABSENT] : possible;
    }
    case "incrementWithin":
    case "rateLimit": {
      if (any) return outcome === PENDING ? [ANY] : [outcome === NO && op === "incrementWithin" ? ANY : result];
      const isLimit = op === "rateLimit";
      const fits = (sum) => (isLimit ? sum <= LIMIT : Math.abs(sum) <= BOUND);
      // What it may have found, and the sum that comes of it. A new limit begins with 0.
      const found = absent ? [] : [[state, state + argument]];
      if (mayBeAbsent) found.push([ABSENT, (isLimit ? 0 : expected) + argument]);
      const stored = found.flatMap(([, sum]) => (fits(sum) ? [sum] : []));
      if (outcome === PENDING) return stored;
      if (outcome === NO) {
        const refused = found.filter(([, sum]) => !fits(sum)).map(([held]) => held);
        // A refused request tells how much the limit has let through.
        return isLimit ? refused.filter((held) => held === result) : refused;
      }
      const possible = stored.filter((sum) => sum === result).slice(0, 1);
      return operation.struck && possible.length > 0 ? [...possible, ABSENT] : possible;
    }
    default:
      throw new Error(`no such operation: ${op}`);
  }
}

/** Searches for an order: undefined if there is one, otherwise the operation that none explains, and the states before it. */
function search(operations, initial, model) {
  const moments = operations.flatMap((operation) => [
    { stamp: operation.invoked, operation, call: true },
    ...(operation.returned === Infinity ? [] : [{ stamp: operation.returned, operation, call: false }]),
  ]);
  moments.sort((a, b) => a.stamp - b.stamp || a.call - b.call);
  const open = new Array(31).fill(undefined);
  let configurations = new Map();
  const put = (map, taken, state) => {
    const key = `${taken} ${String(state)}`;
    if (map.has(key)) return false;
    if (map.size >= MAX_CONFIGURATIONS) throw new Error("too many configurations: more overlaps than can be checked");
    map.set(key, { taken, state });
    return true;
  };
  for (const state of initial) put(configurations, 0, state);
  for (const { operation, call } of moments) {
    if (call) {
      const place = open.indexOf(undefined);
      if (place < 0) throw new Error("more than 31 operations at once on one key");
      open[place] = operation;
      continue;
    }
    const bit = 1 << open.indexOf(operation);
    const next = new Map();
    const seen = new Map();
    const waiting = [];
    for (const { taken, state } of configurations.values()) {
      if (taken & bit) put(next, taken & ~bit, state);
      else {
        // An operation that was cut off may not have taken effect.
        if (operation.outcome === PENDING) put(next, taken, state);
        if (put(seen, taken, state)) waiting.push({ taken, state });
      }
    }
    while (waiting.length > 0) {
      const { taken, state } = waiting.pop();
      const results = after(state, operation, model);
      for (const result of results) put(next, taken, result);
      // An operation that does not change the state can come first; the others may follow later. This does not hold for an
      // operation that was cut off, nor for one that does not tell what it found: it may have removed a value that one of the
      // others stores.
      const isTelling = operation.outcome !== PENDING && operation.op !== "deleteMany";
      if (results.length === 1 && results[0] === state && isTelling) continue;
      for (let place = 0; place < 31; place++) {
        const other = open[place];
        if (other === undefined || other === operation || taken & (1 << place)) continue;
        for (const result of after(state, other, model)) {
          if (put(seen, taken | (1 << place), result)) waiting.push({ taken: taken | (1 << place), state: result });
        }
      }
    }
    if (next.size === 0) {
      return { operation, states: new Set([...configurations.values()].map(({ state }) => state)) };
    }
    open[open.indexOf(operation)] = undefined;
    configurations = next;
  }
  return undefined;
}

/** The smallest window of operations that contradict each other, whatever the key held before, without reads that do not matter. */
function smallest(operations, failed, model) {
  const until = operations.filter(({ invoked }) => invoked < failed.returned);
  const fails = (window) => search(window, new Set([ANY]), model) !== undefined;
  const ends = until.map(({ returned }) => returned).sort((a, b) => b - a);
  let window = until;
  for (let back = 1; back < ends.length; back *= 2) {
    const tail = until.filter(({ returned }) => returned >= ends[back]);
    if (!fails(tail)) continue;
    window = tail;
    break;
  }
  for (let i = window.length <= 400 ? 0 : window.length; i < window.length; ) {
    // Only reads may be left out: without a store, the rest would always contradict itself.
    const rest = window.filter((_, at) => at !== i);
    if (window[i] !== failed && READS.has(window[i].op) && fails(rest)) window = rest;
    else i++;
  }
  // Leaves out operations from the front, as long as the rest still contradicts itself.
  const byEnd = [...window].sort((a, b) => a.returned - b.returned);
  for (const first of byEnd.slice(0, 400)) {
    const rest = window.filter((operation) => operation !== first);
    if (first === failed || !fails(rest)) break;
    window = rest;
  }
  return window;
}

function around(operations, { invoked, returned }) {
  const near = operations.filter((other) => other.invoked <= returned && other.returned >= invoked - WINDOW);
  return near.slice(-2 * WINDOW);
}

function told(why, window, marked) {
  const lines = window.map((operation) => `${marked.includes(operation) ? "→" : " "} ${line(operation)}`);
  return { why, window, lines };
}

const name = (value) => (value === ABSENT ? "nothing" : typeof value === "symbol" ? "anything" : `#${value}`);

/** One operation as a line of text. */
export function line(operation) {
  const { invoked, returned, place, incarnation, op, outcome, argument, expected, result, version, near } = operation;
  const given = STORES.has(op) || COUNTS.has(op) ? name(argument) : "";
  const against =
    op === "compareAndSet" || op === "compareAndDelete" || op === "update"
      ? ` in place of ${name(expected)}`
      : op === "increment" || op === "incrementWithin"
        ? ` from ${name(expected)}`
        : "";
  const outcomes = ["cut off", "done", "yes", "no", "busy"];
  const read = result === ABSENT ? outcomes[outcome] : name(result);
  const seen = version === ABSENT ? "" : ` version ${version}`;
  const by = `${place}.${incarnation}${near ? " near" : ""}`;
  return `${invoked} … ${returned} │ ${by} │ ${op} ${given}${against} → ${read}${seen}`;
}
