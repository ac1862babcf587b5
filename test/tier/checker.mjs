/**
 * Decides whether a recorded history of hosts, one server and many faults keeps the promises of the tier. Knows nothing of the tier:
 * only calls with the times at which they began and ended, by the monotonic clock that all processes of a machine share, and the times
 * at which faults began and ended.
 *
 * The rules:
 *
 * - `stale`: a read that was called at time t does not return what a write has replaced that had returned before t − lease. A write
 *   replaces those that were over before it was called. Absence is a value too: deletes put it, and so does a server that lost its
 *   data. So a read does not return either what the server lost longer ago than the lease.
 * - `lost`: the same for a read that returns nothing, although a write had returned before t − lease. It is excused exactly when the
 *   reader may have been cut off: `get` then says `undefined` by contract.
 * - `invented`: no read returns what was not written yet.
 * - `overtaken`: the same as `stale` for what loaders return. The source has versions; a version is replaced when a later one is in
 *   the source and the call that told the tier of it (`delete`, `set`, `invalidateTag`) has returned. So a load that was overtaken,
 *   wherever it ran, is not served after the bound.
 * - `own`: a read does not return what a write of its own host has replaced that had returned before the read was called, whatever the
 *   lease says: hosts read their own writes.
 * - `expired`: no value is returned later than its ttl and the lease after its write.
 * - `loads`: two loads of a key do not run at the same time on one host (or at all, with `singleFlight: "all"`), unless the first
 *   one was overtaken, or somebody died, froze or was cut off.
 * - `count`: increments that returned have different results, each at least the number of those that had returned before it was
 *   called, and at most the number of those that were called before it returned.
 * - `stuck`, `error`: every call ends in time, and only writes fail, only with ERR_UNREACHABLE.
 * - `apart`: when the faults are over, all participants read the same.
 *
 * A write whose end is unknown (it failed with ERR_UNREACHABLE, or its process was killed) may have happened, at any time from its
 * call until the network and the server had nothing of it any more: `latest`. Its bytes may wait in a connection that is stalled, in a
 * server that is stopped, and in the queue of a client that sends unanswered commands again.
 */

/**
 * How long after a disturbance bytes of a dead or failed call may still arrive, unless there is another disturbance: the longest time a
 * client waits to reconnect, and some more.
 */
const DRAIN_MS = 3_000;

/** Whether the intervals have a time in common. */
const overlap = (window, from, to) => window.from <= to && window.to >= from;

/** The windows of disturbance of each host, with those that concern all hosts. */
class Disturbances {
  #windows;

  constructor(windows) {
    this.#windows = windows;
  }

  /** Those that a participant of the host may have felt between two times; any participant without `who`. */
  of(host, who, from, to) {
    return this.#windows.filter(
      (window) =>
        (window.host === undefined || window.host === host) &&
        (window.who === undefined || who === undefined || window.who === who) &&
        overlap(window, from, to),
    );
  }

  /** When nothing of a call can arrive any more: the end of the chain of disturbances that begins with it. */
  drained(host, from, to) {
    for (let end = to + DRAIN_MS; ; ) {
      const later = Math.max(end, ...this.of(host, undefined, from, end).map((window) => window.to + DRAIN_MS));
      if (later === end) return end;
      end = later;
    }
  }
}

/** The first position of a sorted array whose item is not below: `below(item)` is true for a prefix of the array. */
function partition(items, below) {
  let low = 0;
  for (let high = items.length; low < high; ) {
    const middle = (low + high) >>> 1;
    if (below(items[middle])) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Of writes that have certainly happened: when the first of those that were called after a time had returned. */
class Replacements {
  #calls;
  #returned;

  constructor(writes) {
    const sorted = [...writes].sort((a, b) => a.called - b.called);
    this.#calls = sorted.map(({ called }) => called);
    this.#returned = new Array(sorted.length + 1).fill(Infinity);
    for (let i = sorted.length - 1; i >= 0; i--) {
      this.#returned[i] = Math.min(sorted[i].returned, this.#returned[i + 1]);
    }
  }

  firstAfter(time) {
    return this.#returned[partition(this.#calls, (called) => called <= time)];
  }
}

/** What is known about one key that is written directly. */
class Register {
  #values = new Map();
  #ofValues;
  #ofAbsence;
  #absences;
  /** The replacements by the writes of each host. */
  #own = new Map();

  constructor(writes, losses) {
    const absences = [{ called: -Infinity, returned: -Infinity, latest: -Infinity }];
    for (const write of writes) {
      if (write.value === null) absences.push(write);
      else this.#values.set(write.value, write);
      if (write.value !== null && write.ttl !== undefined) {
        absences.push({ called: write.called + write.ttl, latest: write.latest + write.ttl, ok: false });
      }
    }
    const lost = losses.map(({ from, to }) => ({ called: from, returned: to, latest: to, ok: true }));
    absences.push(...lost);
    const certain = writes.filter(({ ok }) => ok);
    this.#ofValues = new Replacements([...certain, ...lost]);
    this.#ofAbsence = new Replacements(certain.filter(({ value }) => value !== null));
    for (const host of new Set(certain.map((write) => write.host))) {
      const own = certain.filter((write) => write.host === host);
      const ofAbsence = new Replacements(own.filter(({ value }) => value !== null));
      this.#own.set(host, { ofValues: new Replacements(own), ofAbsence });
    }
    this.#absences = absences.sort((a, b) => a.called - b.called);
    for (let i = 1; i < this.#absences.length; i++) {
      const before = this.#absences[i - 1].upTo ?? this.#absences[i - 1].latest;
      this.#absences[i].upTo = Math.max(before, this.#absences[i].latest);
    }
  }

  /** The write of a value. */
  write(value) {
    return this.#values.get(value);
  }

  /** The latest time at which what a read found may have been put there. */
  #latest(read) {
    if (read.value !== null) return this.#values.get(read.value).latest;
    const last = this.#absences[partition(this.#absences, ({ called }) => called <= read.until) - 1];
    return last.upTo ?? last.latest;
  }

  /** When the value of a read was replaced for certain; Infinity if it was not. */
  replaced(read) {
    return (read.value === null ? this.#ofAbsence : this.#ofValues).firstAfter(this.#latest(read));
  }

  /** As {@link replaced}, by a write of the reader's host. */
  replacedByOwn(read) {
    const own = this.#own.get(read.host);
    if (own === undefined) return Infinity;
    return (read.value === null ? own.ofAbsence : own.ofValues).firstAfter(this.#latest(read));
  }
}

/** What is known about one key whose values come from loaders: versions of a source. */
class Source {
  #changes = new Map();
  #told;
  #own = new Map();

  constructor(changes) {
    for (const change of changes) this.#changes.set(change.version, change);
    const certain = changes.filter(({ ok }) => ok).sort((a, b) => a.version - b.version);
    this.#told = new Told(certain);
    for (const host of new Set(certain.map((change) => change.host))) {
      this.#own.set(host, new Told(certain.filter((change) => change.host === host)));
    }
  }

  exists(version, time) {
    if (version === 0) return true;
    const change = this.#changes.get(version);
    return change !== undefined && change.changed <= time;
  }

  /** A version that was written by `set` may arrive late, as any write. Then only a later call replaces it. */
  #latest(version) {
    const own = this.#changes.get(version);
    return own?.how === "set" ? own.latest : -Infinity;
  }

  replaced({ value }) {
    return this.#told.firstAfter(value, this.#latest(value));
  }

  replacedByOwn({ value, host }) {
    return this.#own.get(host)?.firstAfter(value, this.#latest(value)) ?? Infinity;
  }
}

/** Changes of a source that the tier was told of for certain, in the order of their versions. */
class Told {
  #changes;
  #versions;
  /** For each change the first return of a call that told of it or of a later one. */
  #first;

  constructor(changes) {
    this.#changes = changes;
    this.#versions = changes.map(({ version }) => version);
    this.#first = new Array(changes.length + 1).fill(Infinity);
    for (let i = changes.length - 1; i >= 0; i--) {
      this.#first[i] = Math.min(changes[i].returned, this.#first[i + 1]);
    }
  }

  /** When the first call had returned that told of a version after this one, of those that were called after a time. */
  firstAfter(version, time) {
    let i = partition(this.#versions, (other) => other <= version);
    if (time === -Infinity) return this.#first[i];
    let first = Infinity;
    for (; i < this.#changes.length; i++) {
      if (this.#changes[i].called > time) first = Math.min(first, this.#changes[i].returned);
    }
    return first;
  }
}

function grouped(items) {
  const groups = new Map();
  for (const item of items) {
    const group = groups.get(item.key);
    if (group === undefined) groups.set(item.key, [item]);
    else group.push(item);
  }
  return groups;
}

/** Of numbers, which it sorts. */
export function quantiles(numbers) {
  numbers.sort((a, b) => a - b);
  const at = (part) => numbers[Math.min(numbers.length - 1, Math.floor(numbers.length * part))] ?? 0;
  return { count: numbers.length, p50: at(0.5), p99: at(0.99), max: at(1) };
}

/**
 * @param history.lease the bound, in milliseconds
 * @param history.slack how much more the measurement allows, in milliseconds
 * @param history.recovery how long after a disturbance a reader may still be cut off, because its client or the tier waits before it
 *   tries again
 * @param history.flights `"host"` or `"all"`
 * @param history.kinds for each key `"register"`, `"source"` or `"counter"`
 * @param history.reads `{ host, who, key, value, called, returned, until, count, final }`: `count` reads of the same value by one
 *   participant, the last one called at `called`, the first one returned at `returned`, the last one at `until`
 * @param history.writes `{ host, key, value, called, returned, ok, ttl }` of registers
 * @param history.changes `{ host, key, version, changed, called, returned, ok, how }` of sources
 * @param history.increments `{ host, key, result, called, returned, ok }`
 * @param history.loads `{ host, key, from, to }`
 * @param history.windows `{ what, host, who, from, to, isDeath }`: disturbances of a host, of a participant, or of all
 * @param history.losses `{ from, to }`: when the server lost its data
 * @param history.failures `{ rule, ... }` found by the participants themselves
 * @returns `{ violations, staleness, reads, ... }`; `staleness.worst` is the read that was stale for longest
 */
export function check(history) {
  const { lease, slack = 0, recovery = 0, kinds, losses = [], windows = [], failures = [] } = history;
  const disturbances = new Disturbances(windows);
  const violations = [...failures];
  const staleness = [];
  let worst;
  const counts = { reads: 0, excused: 0, writes: 0, unknown: 0, loads: history.loads.length };
  const report = (rule, facts) => violations.push({ rule, ...facts });

  for (const write of [...history.writes, ...history.changes, ...history.increments]) {
    counts.writes++;
    if (!write.ok) counts.unknown++;
    write.latest = write.ok ? write.returned : disturbances.drained(write.host, write.called, write.returned);
  }
  const writes = grouped(history.writes);
  const changes = grouped(history.changes);
  const increments = grouped(history.increments);
  const models = new Map();
  for (const [key, kind] of Object.entries(kinds)) {
    if (kind === "register") models.set(key, new Register(writes.get(key) ?? [], losses));
    if (kind === "source") models.set(key, new Source(changes.get(key) ?? []));
    if (kind === "counter") models.set(key, new Counter(increments.get(key) ?? []));
  }
  // That another participant dies cuts nobody off from the server.
  const mayBeCutOff = (read) =>
    disturbances
      .of(read.host, read.who, read.returned - lease - recovery, read.until)
      .some((window) => !window.isDeath);

  for (const read of history.reads) {
    counts.reads += read.count;
    const kind = kinds[read.key];
    const model = models.get(read.key);
    if (kind === "counter") {
      model.checkRead(read, { lease, slack, lossy: losses.length > 0, report, mayBeCutOff });
      continue;
    }
    if (read.value === null && kind === "source") continue;
    if (read.value !== null) {
      const write = kind === "register" ? model.write(read.value) : undefined;
      const exists = kind === "register" ? write?.called <= read.until : model.exists(read.value, read.until);
      if (!exists) {
        report("invented", { read, write });
        continue;
      }
      if (write?.ttl !== undefined && read.called > write.latest + write.ttl + lease + slack)
        report("expired", { read, write });
    }
    const isExcused = read.value === null && !read.final && mayBeCutOff(read);
    if (model.replacedByOwn(read) < read.called && !isExcused) report("own", { read });
    const age = read.called - model.replaced(read);
    if (age <= 0) continue;
    if (isExcused && age > lease) {
      counts.excused += read.count;
      continue;
    }
    staleness.push(age);
    if (worst === undefined || age > worst.age) worst = { age, read };
    if (age <= lease + slack) continue;
    report(kind === "source" ? "overtaken" : read.value === null ? "lost" : "stale", { read, age });
  }
  for (const [key, model] of models) if (kinds[key] === "counter") model.checkResults({ key, losses, report });
  checkLoads(history, { disturbances, changes, recovery, report });
  checkFinal(history, report);
  return { violations, staleness: { ...quantiles(staleness), worst }, ...counts };
}

/** What is known about one counter, which starts at 0 and is incremented by 1. */
class Counter {
  #all;
  #own = new Map();
  #called;
  #returned;

  constructor(increments) {
    this.#all = increments;
    this.#called = increments.map(({ called }) => called).sort((a, b) => a - b);
    this.#returned = increments
      .filter(({ ok }) => ok)
      .map(({ returned }) => returned)
      .sort((a, b) => a - b);
  }

  #least = (time) => partition(this.#returned, (returned) => returned < time);
  #most = (time) => partition(this.#called, (called) => called <= time);

  /** The largest result that the reader's host had got before a time. */
  #ownLeast(host, time) {
    if (!this.#own.has(host)) {
      const own = this.#all
        .filter((increment) => increment.ok && increment.host === host)
        .sort((a, b) => a.returned - b.returned);
      let most = 0;
      this.#own.set(host, {
        returned: own.map(({ returned }) => returned),
        most: own.map(({ result }) => (most = Math.max(most, result))),
      });
    }
    const { returned, most } = this.#own.get(host);
    return most[partition(returned, (each) => each < time) - 1] ?? 0;
  }

  checkRead(read, { lease, slack, lossy, report, mayBeCutOff }) {
    const value = read.value ?? 0;
    if (value > this.#most(read.until)) report("invented", { read, most: this.#most(read.until) });
    if (lossy) return;
    const isExcused = read.value === null && !read.final && mayBeCutOff(read);
    const own = this.#ownLeast(read.host, read.called);
    if (value < own && !isExcused) report("own", { read, least: own });
    const least = this.#least(read.called - lease - slack);
    if (value >= least || isExcused) return;
    report("stale", { read, least });
  }

  checkResults({ key, losses, report }) {
    const seen = new Set();
    for (const { ok, called, returned, result } of this.#all) {
      if (!ok || losses.length > 0) continue;
      if (seen.has(result)) report("count", { key, result, why: "two increments have the same result" });
      seen.add(result);
      const least = this.#least(called) + 1;
      const most = this.#most(returned);
      if (result < least || result > most) report("count", { key, result, least, most, called, returned });
    }
  }
}

function checkLoads(history, { disturbances, changes, recovery, report }) {
  const lanes = new Map();
  for (const load of history.loads) {
    const lane = history.flights === "all" ? load.key : `${load.host} ${load.key}`;
    if (!lanes.has(lane)) lanes.set(lane, []);
    lanes.get(lane).push(load);
  }
  for (const lane of lanes.values()) {
    lane.sort((a, b) => a.from - b.from);
    let running = lane[0];
    for (const load of lane.slice(1)) {
      if (load.from < running.to) {
        const overtaken = (changes.get(load.key) ?? []).some(
          ({ called, latest }) => called <= load.from && latest >= running.from,
        );
        const disturbed = [running.host, load.host].some(
          (host) => disturbances.of(host, undefined, running.from - recovery, load.from).length > 0,
        );
        if (!overtaken && !disturbed) report("loads", { first: running, second: load });
      }
      if (load.to > running.to) running = load;
    }
  }
}

function checkFinal(history, report) {
  const found = new Map();
  for (const read of history.reads) {
    if (!read.final) continue;
    const first = found.get(read.key);
    if (first === undefined) found.set(read.key, read);
    else if (first.value !== read.value) report("apart", { key: read.key, first, second: read });
  }
}
