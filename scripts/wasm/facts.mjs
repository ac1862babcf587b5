/**
 * What the compiled engine says about itself: the numbers that `src/engine/plan.ts` needs before there is a memory, and those
 * that must be known where WebAssembly is missing. An instance made only to be asked would reserve 10 GiB of address space.
 */

const PAGE = 65536;
const HOST = { now: () => 0, take: () => 0, release: () => {}, pause: () => 0 };

/** @param {Uint8Array} module */
export function wasmFacts(module) {
  const memory = new WebAssembly.Memory({ initial: 17, maximum: 17, shared: true });
  const { exports: x } = new WebAssembly.Instance(new WebAssembly.Module(module), { host: { memory, ...HOST } });
  const [minSize, maxSize] = [x.min_size(), x.max_size()];
  const facts = {
    version: x.layout_version(),
    minSize,
    maxSize,
    areaBytes: x.area_bytes(),
    /** Places of the smallest and the largest cache; between the two there is one for each 64 KiB. */
    minSlots: x.participants_of(minSize),
    maxSlots: x.participants_of(maxSize),
    magic: "",
  };
  if (x.__heap_base.value > PAGE) throw new Error("the module's data is too large for what lies below the areas");
  for (let size = minSize; size <= maxSize; size += PAGE) {
    const slots = Math.min(Math.max(size / PAGE, facts.minSlots), facts.maxSlots);
    if (x.participants_of(size) !== slots) throw new Error(`a cache of ${size} bytes has not ${slots} places`);
  }
  // Which bytes of a header the module looks at: those of three words, as src/engine/plan.ts does.
  const header = new Uint8Array(memory.buffer, PAGE, 64);
  if (!x.format(PAGE, minSize, 1, 2, 3, 4)) throw new Error("the module cannot format its smallest region");
  facts.magic = String.fromCharCode(...header.subarray(0, 8));
  const words = new BigUint64Array(memory.buffer, PAGE, 3);
  if (words[1] !== BigInt(facts.version) || words[2] !== BigInt(minSize)) throw new Error("the header has moved");
  for (let at = 0; at < 64; at++) {
    header[at] ^= 1;
    const answer = x.inspect(PAGE, minSize);
    header[at] ^= 1;
    // 1 for the magic, 2 for the version, 3 for the size, 0 for what does not matter.
    const expected = at < 24 ? Math.floor(at / 8) + 1 : 0;
    if (answer !== expected) throw new Error(`a change of byte ${at} of the header is ${answer}, not ${expected}`);
  }
  return facts;
}
