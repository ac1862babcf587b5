/**
 * Locks: `navigator.locks` for all threads and processes that share a cache. A lock is a claim in the shared memory
 * (wasm/src/coordinate/claims.rs), and its token is the fence. This file queues the requests of this thread, and decides when the
 * first of them tries to get the claim.
 *
 * In one thread who comes first is served first. Only the first request of a name tries, the others stand behind it. When
 * somebody else has the lock, the first request waits for a ring: a release rings those who have met the lock taken. The death of
 * the owner rings nobody, so the first request also tries again from time to time.
 *
 * Between threads nobody queues. Who is woken first gets the lock, but not the thread that has just released it: it leaves the
 * lock to the others for a moment, see {@link Queue.#polite}. So a frozen thread that waits delays nobody for longer than that.
 */

import { BUSY, CLAIMED, FULL, LOCK_PENDING, LOCK_STEAL, LOCK_WAIT } from "../engine/contract.ts";
import type { Engine } from "../engine/engine.ts";
import { busy, closed } from "../errors.ts";
import { checkOptions } from "../option-names.ts";
import { checkSignal, checkTimeout, Limits, type Scoped } from "./scoped.ts";
