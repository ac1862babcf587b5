/**
 * The limits of the service, which can be changed while it runs: whoever writes them, every process reloads them at once. They are
 * in the cache, and these defaults hold while nobody has written any.
 */

import { processName } from "./settings.mjs";
import { cache, loaded, monotonic } from "./store.mjs";

const DEFAULTS = { postsPerHour: 10 };

/** The limits that this process obeys now. */
export let limits = DEFAULTS;

/** Loads the limits now and after each change. */
export function obeyLimits() {
  // Watches first, so that no change is missed.
  cache.watch("limits", load);
  load();
}

/** Changes limits for all processes. */
export function changeLimits(change) {
  return cache.update("limits", (was) => ({ ...DEFAULTS, ...was, ...change }));
}

function load() {
  limits = { ...DEFAULTS, ...cache.get("limits") };
  // Only for the driver, which shows how fast that was.
  loaded.set(processName, { limits, at: monotonic() });
}
