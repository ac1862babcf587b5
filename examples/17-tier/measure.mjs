/** The books of the run: which writes returned when, what each process saw when, and how stale that was. */

/** Milliseconds of the machine's monotonic clock, which is the same in all processes. */
export function now() {
  return Number(process.hrtime.bigint()) / 1e6;
}

export class Books {
  /** The writes that returned, by version: `{ began, ended }`. */
  #writes = new Map();
  /** By process: spans in which it saw one version, `{ version, first, last }`, by `first`. */
  #spans = new Map();
  /** The errors of the writes that the server did not confirm. */
  refused = [];

  wrote({ version, began, ended, error }) {
    if (error === undefined) this.#writes.set(version, { began, ended });
    else this.refused.push(error);
  }

  /** The first read that saw a version ended at `first`, and the latest one so far began at `last`. */
  saw(process, { version, first, last }) {
    if (!this.#spans.has(process)) this.#spans.set(process, new Map());
    this.#spans.get(process).set(first, { version, first, last });
  }

  get writes() {
    return this.#writes.size;
  }

  /** How many milliseconds after the beginning of a write a process saw it; undefined if it has not yet. */
  seenAfter(process, version) {
    const spans = [...(this.#spans.get(process)?.values() ?? [])].filter((span) => span.version >= version);
    return spans.length === 0
      ? undefined
      : Math.min(...spans.map(({ first }) => first)) - this.#writes.get(version).began;
  }

  /**
   * One number for each write that returned in this time and each process: for how many milliseconds after the write returned the
   * process still began reads that answered with an older value. 0 if it began none. In ascending order.
   */
  staleness(from = -Infinity, to = Infinity) {
    const writes = [...this.#writes].filter(([, { ended }]) => ended >= from && ended <= to);
    const all = [...this.#spans.values()].flatMap((spans) =>
      writes.map(([version, { ended }]) => {
        const older = [...spans.values()].filter((span) => span.version < version);
        return Math.max(0, ...older.map(({ last }) => last - ended));
      }),
    );
    return all.sort((a, b) => a - b);
  }
}

/** The number below which this share of the sorted numbers lies. */
export function quantile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}
