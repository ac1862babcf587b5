/**
 * cache-machine/tier: Redis or Valkey behind the cache, for more than one machine.
 *
 * @packageDocumentation
 */

export type { Counts } from "./core.ts";
export type { TierOptions, TierSetOptions } from "./options.ts";
export type { OwnerReport } from "./owner.ts";
export { openTier, Tier, type TierCountedEntry, type TierEntry, type TierStats } from "./tier.ts";
