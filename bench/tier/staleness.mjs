/**
 * How stale the reads of one host are after writes on another. Number n is written under one of some hundred keys at its time; the readers
 * know these times, and read each key before it is written, just after it, and at growing distances.
 *
 * A read is stale if a newer number than the one it answers was acknowledged to its writer before the read began. All times are of the
 * monotonic clock of the machine, which its processes share.
 */

export const WATCHED_KEYS = 256;
/** Milliseconds between two writes. */
export const PERIOD = 10;
/** When a key is read, in writes since its own: first a quarter of a second before. */
export const LAGS = [-25, 1, 2, 3, 5, 8, 13, 20, 32, 50, 80, 125, 200];

export function keyAt(n) {
  return `watched:${((n % WATCHED_KEYS) + WATCHED_KEYS) % WATCHED_KEYS}`;
}

/** Milliseconds of the monotonic clock of the machine. */
export function machineTime() {
  return Number(process.hrtime.bigint()) / 1e6;
}

/**
 * @param {number[][]} writes `[n, begun, acknowledged or NaN]`
 * @param {Float64Array[]} readers what each reader saw: n that it asked for, number that it got, begun, ended, and so on
 * @returns for each acknowledged write and reader: `last`, when the reader last began a read that answered an older number, after the
 * acknowledgement (0 if never), and `first`, when it first had the number or a newer one, since the write began; sorted, in milliseconds
 */
export function compare(writes, readers) {
  const byKey = new Map();
  for (const [n, begun, acknowledged] of writes) {
    if (Number.isNaN(acknowledged)) continue;
    const key = keyAt(n);
    if (!byKey.has(key)) byKey.set(key, []);
    byKey.get(key).push({ n, begun, acknowledged });
  }
  const last = [];
  const first = [];
  for (const seen of readers) {
    const windows = new Map();
    const firsts = new Map();
    for (let i = 0; i < seen.length; i += 4) {
      const [asked, got, begun, ended] = seen.subarray(i, i + 4);
      for (const write of byKey.get(keyAt(asked)) ?? []) {
        if (got >= write.n) {
          const since = ended - write.begun;
          if (since < (firsts.get(write.n) ?? Number.POSITIVE_INFINITY)) firsts.set(write.n, since);
        }
        if (begun <= write.acknowledged) continue;
        const stale = got < write.n ? begun - write.acknowledged : 0;
        windows.set(write.n, Math.max(windows.get(write.n) ?? 0, stale));
      }
    }
    last.push(...windows.values());
    first.push(...firsts.values());
  }
  return { last: Float64Array.from(last).sort(), first: Float64Array.from(first).sort() };
}

/** How many of the numbers that a sweep from `from` on saw are older than the last acknowledged ones. */
export function countStale(writes, from, swept) {
  const newest = new Map();
  for (const [n, , acknowledged] of writes) if (!Number.isNaN(acknowledged)) newest.set(keyAt(n), n);
  return swept.filter((got, i) => got < (newest.get(keyAt(from + i)) ?? 0)).length;
}

export function quantile(sorted, part) {
  return sorted.length === 0 ? Number.NaN : sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
}
