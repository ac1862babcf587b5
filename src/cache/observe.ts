/** The reports of a cache about itself: numbers for monitoring, a picture of the memory, and a description for logs. */

import { CLASS_SMALL, PHASE_FREE, PHASE_OPEN, PHASE_RECLAIM, PHASE_SEALED } from "../engine/contract.ts";
import { ROOT } from "../values/scope.ts";
import type { CacheSummary, Census, Inspection, Segment, Stats } from "./types.ts";
import type { View } from "./view.ts";

const SEGMENT_STATES: Record<number, Segment["state"]> = {
  [PHASE_FREE]: "free",
  [PHASE_OPEN]: "open",
  [PHASE_SEALED]: "sealed",
  [PHASE_RECLAIM]: "reclaim",
};
/** How many parts of the index an {@link Inspection} has. No index has fewer buckets. */
const INDEX_PARTS = 256;

/** How many entries of the view's scope can be read now, without those of the namespaces within it. */
export function sizeOf(view: View): number {
  return view.scope === ROOT ? view.census().own : view.count();
}

/** Numbers about the whole cache that the memory holds ready: nothing is walked. */
export function statsOf({ engine, opening }: View): Stats {
  opening.checkOpen();
  const { participants, capacity, used } = engine.usage();
  const near = opening.near?.usage ?? { entries: 0, bytes: 0 };
  return { capacity, used, size: engine.region.size, participants, ...engine.counts(), near };
}

/** How many entries the whole cache has, and the bytes that they take. Walks the index. */
export function censusOf(view: View): Census {
  const { entries, bytes } = view.census();
  return { entries, bytes };
}

/** The memory of the whole cache as it is now. */
export function inspectionOf({ engine, opening }: View): Inspection {
  opening.checkOpen();
  const segments: Segment[] = engine.segments().map(({ phase, class: queue, used, live, generation }) => {
    const state = SEGMENT_STATES[phase] as Segment["state"];
    return { state, class: queue === CLASS_SMALL ? "small" : "main", used, live, generation };
  });
  const { room, counts } = engine.occupancy(INDEX_PARTS);
  const part = (_: unknown, i: number) => ({ live: counts[2 * i] as number, ghosts: counts[2 * i + 1] as number });
  return {
    segments,
    segmentBytes: engine.usage().capacity / segments.length,
    index: Array.from({ length: INDEX_PARTS }, part),
    indexPartEntries: room,
  };
}

/** A description of a view, without its entries. Never throws, because it is used for logs. */
export function summaryOf({ engine, opening, scope }: View): CacheSummary {
  const { reach, size } = engine.region;
  const { name, closed } = opening;
  const summary: CacheSummary = { reach, ...(name !== undefined && { name }), size };
  if (scope.path.length > 0) summary.namespace = scope.path.join("/");
  if (closed) summary.closed = true;
  else {
    try {
      summary.participants = engine.usage().participants;
    } catch {
      // The engine cannot be asked while it asks the clock, and when the stack ends. Then the number is left out.
    }
  }
  return summary;
}
