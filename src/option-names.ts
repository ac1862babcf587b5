/**
 * Refuses options that do not exist. A misspelt option, or one of another library, would be ignored silently: an entry that
 * was meant to expire would stay. The error names the option that was probably meant.
 */

/**
 * Our options, and what other libraries call them (cache-manager, keyv, lru-cache, node-cache, Redis, memcached, web caches):
 * in lower case, without `-` and `_`. Of the options that the operation has, the first row with the name decides.
 */
const HABITS: readonly (readonly [ours: string, theirs: string])[] = [
  ["ttl", "maxage smaxage age expire expires expiration expiresin expirein ex px timeout lifetime stdttl validity"],
  ["ttl", "ttlms ttlseconds timetolive cachetime staletime revalidate"],
  ["expiresAt", "expireat expiry expirationdate exat pxat validuntil until deadline"],
  ["tags", "groups group labels surrogatekey surrogatekeys dependson"],
  ["size", "max maxentries maxitems maxkeys maxsize capacity memory maxmemory maxbytes limit bytes length"],
  ["maxEntrySize", "maxvalue maxvaluesize maxitemsize maxobjectsize maxentry"],
  ["path", "dir directory folder file filename location"],
  ["codec", "serialize deserialize serializer encode decode encoding valueencoding transcoder"],
  ["now", "clock time date perf"],
  ["frozenObjects", "freeze frozen immutable clone useclones"],
  ["nearCache", "near localcache l1 localmax"],
  ["grace", "swr stale allowstale stalewhilerevalidate staleiferror stalettl graceperiod"],
  ["refreshAhead", "refreshthreshold earlyrefresh beta xfetch"],
  ["fresh", "force forcerefresh forcefresh bypass reload skipcache"],
  ["signal", "abort abortsignal aborted"],
  ["lease", "locktimeout lockttl loadtimeout"],
  ["timeout", "waittimeout maxwait wait"],
  ["initial", "default start initialvalue from"],
  ["limit", "points max requests rate"],
  ["window", "duration interval per windowms"],
  ["prefix", "match pattern startswith"],
];
/** What an error adds to the name of an option whose unit is often another one elsewhere. */
const UNITS: Readonly<Record<string, string>> = {
  ttl: ", in milliseconds",
  expiresAt: ", a time of the cache's clock",
};
/** Names are compared up to this length. */
const LONGEST = 30;

/**
 * Checks that an argument with options is an object with no option but the known ones, or missing. Returns the object as it is,
 * or an empty one. The caller reads each option from it once, because it may be a getter.
 *
 * An option whose value is `undefined` counts as missing, but its name has to be known too. Options may be inherited, for
 * example from defaults by `Object.create`. What is not enumerable, and what stands on the `Object.prototype` of some realm, is
 * no mistake of the caller, so it is not checked.
 *
 * @param known the names of the options
 * @param argument the name of the argument, for the error
 * @throws {TypeError} when it is no object, or has another option.
 */
export function checkOptions<T extends object>(
  options: T | undefined,
  known: readonly (keyof T & string)[],
  argument = "options",
): Partial<T> {
  if (options === undefined) return {};
  if (typeof options !== "object" || options === null) {
    throw new TypeError(`${argument}: must be an object, not ${options === null ? "null" : `a ${typeof options}`}`);
  }
  for (const name in options) if (!known.includes(name)) refuseUnknown(options, name, known, argument);
  return options;
}

/**
 * Throws for an option that does not exist, unless it is a property of `Object.prototype`. For callers that compare the names
 * themselves; otherwise as {@link checkOptions}.
 */
export function refuseUnknown(options: object, name: string, known: readonly string[], argument = "options"): void {
  let owner: object = options;
  while (!Object.hasOwn(owner, name)) {
    const above: object | null = Object.getPrototypeOf(owner);
    if (above === null) break;
    owner = above;
  }
  if (owner !== options && Object.getPrototypeOf(owner) === null && Object.hasOwn(owner, "isPrototypeOf")) return;
  const meant = nearest(name, known);
  const remedy =
    meant === undefined
      ? `The options are ${known.map((each) => `\`${each}\``).join(", ")}.`
      : `Use \`${meant}\`${UNITS[meant] ?? ""}.`;
  throw new TypeError(`${argument}.${name.slice(0, LONGEST)}: there is no such option. ${remedy}`);
}

/** The known option that was probably meant by a name; `undefined` when none is near. */
function nearest(name: string, known: readonly string[]): string | undefined {
  const bare = (text: string): string => text.slice(0, LONGEST).toLowerCase().replace(/[-_]/g, "");
  const wanted = bare(name);
  const habit = HABITS.find(([ours, theirs]) => known.includes(ours) && theirs.split(" ").includes(wanted));
  if (habit !== undefined) return habit[0];
  let best: string | undefined;
  // A third of the letters may differ.
  let least = Math.max(1, Math.floor(wanted.length / 3)) + 1;
  for (const each of known) {
    const distance = editDistance(wanted, bare(each));
    if (distance < least) [best, least] = [each, distance];
  }
  return best;
}

/** How many letters have to be inserted, removed, replaced or swapped with their neighbour to get from `a` to `b`. */
function editDistance(a: string, b: string): number {
  // The rows of the table of Wagner and Fischer: this one, the one before, and the one before that for a swap.
  let [before, last]: [number[], number[]] = [[], Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      const least = Math.min(
        (row[j - 1] as number) + 1,
        (last[j] as number) + 1,
        (last[j - 1] as number) + (same ? 0 : 1),
      );
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      row.push(isSwap ? Math.min(least, (before[j - 2] as number) + 1) : least);
    }
    [before, last] = [last, row];
  }
  return last[b.length] as number;
}
