/**
 * Calls the functions of the native part with arguments of all kinds and numbers, in a process of its own:
 * `node native-fuzz.mjs '{"seed": …, "times": …, "folder": …}'` prints how often each answer came. An exception and an
 * answer that is no number end it with an error.
 */
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { generator } from "../crash/checked-values.mjs";

const PAGE = 65_536;
const { seed, times, folder, binary } = JSON.parse(process.argv[2]);
const native = { exports: {} };
process.dlopen(native, binary);
const calls = native.exports;
// Some paths are not absolute: what is created there belongs to the folder as well.
process.chdir(folder);
const random = generator(seed);

const memory = new WebAssembly.Memory({ initial: 8, maximum: 8, shared: true });
const file = openSync(join(folder, "file"), "w+");
const directory = openSync(folder, "r");
const closed = openSync(folder, "r");
closeSync(closed);

const detached = new Uint8Array(2 * PAGE);
structuredClone(detached.buffer, { transfer: [detached.buffer] });
const newCounter = () => new Int32Array(new SharedArrayBuffer(4));
const users = Array.from({ length: 4 }, newCounter);
const revoked = Proxy.revocable({}, {});
revoked.revoke();

const below = (count) => random.below(count);
const odd = [NaN, Infinity, -Infinity, -0, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 63), 1e300, Number.MIN_VALUE];
/** Makers of arguments of the right types, which need not make sense. */
const fd = () => [file, file, directory, closed, 1_000_000][below(5)];
const number = () => [0, 1, PAGE, below(1_000), PAGE * below(20)][below(5)];
const range = () => new Uint8Array(memory.buffer, PAGE * below(4), PAGE * below(5));
const path = () => [join(folder, `new-${below(3)}`), `${folder}/${"ü".repeat(below(3_000))}`, "", "\ud800"][below(4)];
/** The descriptor of the latest FIFO. */
let fifo = closed;
/** A counter of users; sometimes a new one in place of an old one, which is forgotten together with its users. */
const counter = () => (below(20) === 0 ? (users[below(4)] = newCounter()) : users[below(4)]);
const SHAPES = {
  reserve: [fd, number, number],
  map: [fd, range],
  mapPrivate: [fd, range],
  unmap: [range],
  link: [fd, path],
  lock: [fd, number],
  unlock: [fd, number],
  isLocked: [fd, number],
  lockDirectory: [fd],
  makeFifo: [path],
  openFifo: [path],
  passFifo: [() => [fifo, file][below(2)]],
  join: [counter, range],
  leave: [counter],
};

/** Makers of arguments of any type. */
const values = [
  ...[fd, number, range, path, counter],
  () => odd[below(odd.length)],
  () => -below(1_000),
  () => random.random() * 10,
  ...[undefined, null, true, 1n, Symbol("fd"), [file], memory, memory.buffer, detached, revoked.proxy].map(
    (each) => () => each,
  ),
  () => String(file),
  () => `${folder}/a\0b`,
  () => ({ valueOf: () => file, length: PAGE }),
  () => new Proxy(range(), {}),
  () => () => file,
  () => new ArrayBuffer(PAGE),
  () => new Uint8Array(below(200)),
  () => new DataView(memory.buffer),
  () => new Int32Array(memory.buffer),
  () => new BigInt64Array(memory.buffer, 0, 1),
  () => new Uint8ClampedArray(memory.buffer),
  () => new Uint8Array(memory.buffer, below(3), PAGE),
  () => new Uint8Array(memory.buffer, 0, PAGE + below(3)),
  () => counter().subarray(0, below(2)),
  () => new Int32Array(below(3)),
];
const any = () => values[below(values.length)]();

/** Arguments for a function: of its shape, often with one wrong argument, or any number of arguments of any type. */
function argumentsFor(name) {
  if (below(3) === 0) return Array.from({ length: below(6) }, any);
  const args = SHAPES[name].map((make) => make());
  if (below(3) === 0) args[below(args.length)] = any();
  // Reserved blocks take memory.
  if (name === "reserve" && typeof args[2] === "number" && args[2] > 20 * PAGE) args[2] = PAGE;
  return args;
}

const answers = {};
for (let i = 0; i < times; i++) {
  const name = Object.keys(calls)[below(Object.keys(calls).length)];
  const call = calls[name];
  const args = argumentsFor(name);
  // A call as a constructor answers an object, whatever the function answers.
  let answer = below(50) === 0 ? Number(Reflect.construct(call, args) === undefined) : Reflect.apply(call, any(), args);
  if (name === "openFifo" && answer > 1) {
    closeSync(answer);
    fifo = answer;
    answer = 1;
  }
  if (!Number.isInteger(answer) || answer > 1 || answer < -4096) throw new Error(`${name} answered ${String(answer)}`);
  answers[name] ??= {};
  answers[name][answer] = (answers[name][answer] ?? 0) + 1;
  if (i % 1_000 === 0) globalThis.gc();
}

// After all these calls the functions still work.
const last = new Uint8Array(memory.buffer, 7 * PAGE, PAGE);
const fresh = openSync(join(folder, "fresh"), "w+");
if (calls.reserve(fresh, 0, PAGE) !== 0 || calls.map(fresh, last) !== 0)
  throw new Error("the functions do not work any more");
last[5] = 1;
if (calls.unmap(last) !== 0 || last[5] !== 0) throw new Error("not unmapped");
console.log(JSON.stringify(answers));
