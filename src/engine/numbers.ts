/** Numbers about a whole region, as participants and spectators read them: typed answers of the exports that observe. */

import {
  CLASS_MAIN,
  CLASS_SHIFT,
  COUNTER_COMPACTIONS,
  COUNTER_DELETES,
  COUNTER_EVICTIONS,
  COUNTER_EXPIRATIONS,
  COUNTER_HITS,
  COUNTER_MISSES,
  COUNTER_RECLAIMS,
  COUNTER_SETS,
  SEGMENT_GENERATION,
  SEGMENT_LIVE,
  SEGMENT_OWNER,
  SEGMENT_STATE,
  SEGMENT_USED,
  SEGMENT_WORDS,
} from "./contract.ts";
import type { Exports } from "./exports.ts";

/** The numbers that participants count. */
export type Counts = Record<
  "hits" | "misses" | "sets" | "deletes" | "evictions" | "expirations" | "reclaims" | "compactions",
  number
>;

const COUNTERS: Counts = {
  hits: COUNTER_HITS,
  misses: COUNTER_MISSES,
  sets: COUNTER_SETS,
  deletes: COUNTER_DELETES,
  evictions: COUNTER_EVICTIONS,
  expirations: COUNTER_EXPIRATIONS,
  reclaims: COUNTER_RECLAIMS,
  compactions: COUNTER_COMPACTIONS,
};

/** A segment as it is now. Phase and class are `PHASE_…` and `CLASS_…`. */
export interface SegmentNumbers {
  phase: number;
  class: number;
  /** Bytes appended. */
  used: number;
  /** Bytes of `used` that belong to live records. */
  live: number;
  generation: number;
  /** The seat that fills or empties it; -1 for none. */
  owner: number;
}

/** How an entry lies in the memory. `class` is `CLASS_…`. */
export interface Residence {
  heat: number;
  class: number;
}

/** How the entry of the key lies in the memory; `undefined` when it is absent, or was moved again and again meanwhile. */
export function residenceOf(x: Exports, area: number, key: number): Residence | undefined {
  const found = x.residence(area, key);
  if (found < 0) return undefined;
  return { heat: found & ((1 << CLASS_SHIFT) - 1), class: (found >> CLASS_SHIFT) & CLASS_MAIN };
}

/** The sums of what all participants have counted. */
export function countsOf(x: Exports, area: number): Counts {
  const sum = ([name, counter]: [string, number]) => [name, x.counter(area, counter)];
  return Object.fromEntries(Object.entries(COUNTERS).map(sum)) as Counts;
}

/**
 * The segments as they are now.
 *
 * @param value the value part of the area
 */
export function segmentsOf(x: Exports, area: number, value: Uint8Array): SegmentNumbers[] {
  const count = x.segments(area);
  const words = new Uint32Array(value.buffer, value.byteOffset, SEGMENT_WORDS * count);
  return Array.from({ length: count }, (_, i) => {
    const word = (number: number) => words[SEGMENT_WORDS * i + number] as number;
    const state = word(SEGMENT_STATE);
    return {
      phase: state & ((1 << CLASS_SHIFT) - 1),
      class: state >> CLASS_SHIFT,
      used: word(SEGMENT_USED),
      live: word(SEGMENT_LIVE),
      generation: word(SEGMENT_GENERATION),
      owner: word(SEGMENT_OWNER) - 1,
    };
  });
}
