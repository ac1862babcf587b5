/**
 * The heap that near caches may take. Each has a budget of its own, and all near caches of a thread together have one more,
 * because JavaScript ends a process whose heap is full.
 */

/** A near cache takes this part of its cache's size by default, and all of a thread together this part of its heap. */
const SHARE = 1 / 8;

/** All near caches of this thread. */
const thread: { bytes: number; limit: number | undefined; budgets: Set<Budget> } = {
  bytes: 0,
  limit: undefined,
  budgets: new Set(),
};

/** An eighth of what the heap of this thread may grow to. Browsers do not tell their limit. */
function threadLimit(): number {
  const v8 = globalThis.process?.getBuiltinModule?.("node:v8");
  return v8 === undefined ? Infinity : v8.getHeapStatistics().heap_size_limit * SHARE;
}

/** The budget of one near cache, in bytes of heap by estimate. */
export class Budget {
  /** The most bytes that this near cache may take. */
  readonly most: number;
  #bytes = 0;
  readonly #release: () => void;

  /**
   * @param most bytes, or `undefined` for an eighth of the cache's size
   * @param size bytes of the cache
   * @param release drops one value, unless it was read lately; called when the thread needs room for another near cache
   */
  constructor(most: number | undefined, size: number, release: () => void) {
    thread.limit ??= threadLimit();
    this.most = Math.min(most ?? size * SHARE, thread.limit);
    this.#release = release;
    thread.budgets.add(this);
  }

  /** Bytes taken. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Takes bytes, or gives them back when they are negative. */
  take(bytes: number): void {
    this.#bytes += bytes;
    thread.bytes += bytes;
  }

  /** Whether this near cache may take so many bytes more. */
  allows(bytes: number): boolean {
    return this.#bytes + bytes <= this.most;
  }

  /** Whether both this near cache and the thread may take so many bytes more. */
  hasRoomFor(bytes: number): boolean {
    return this.allows(bytes) && thread.bytes + bytes <= (thread.limit as number);
  }

  /** Lets the near cache of this thread that has taken most drop a value. */
  releaseFromLargest(): void {
    let largest: Budget = this;
    for (const each of thread.budgets) if (each.#bytes > largest.#bytes) largest = each;
    largest.#release();
  }

  /** Ends the budget, whose bytes were given back. */
  close(): void {
    thread.budgets.delete(this);
  }
}
