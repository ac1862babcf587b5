/**
 * cache-machine/tier: Redis or Valkey behind the cache, for more than one machine.
 *
 * @packageDocumentation
 */

export { openTier, Tier } from "./tier.ts";
export type {
  Counts,
  OwnerReport,
  OwnerState,
  TierCountedEntry,
  TierEntry,
  TierOptions,
  TierSetOptions,
  TierStats,
} from "./types.ts";
