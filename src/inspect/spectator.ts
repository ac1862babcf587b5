/** Not yet: the interface alone. */
import type {
  CensusReport,
  EntryReport,
  Hold,
  KeyReport,
  KeysOptions,
  SeatReport,
  SegmentReport,
  SpectatorStats,
  Verification,
} from "./reports.ts";

export type * from "./reports.ts";

const notYet = (): never => {
  throw new Error("not yet");
};

export class Spectator {
  /** @throws {CacheError} `ERR_CLOSED` no such file, `ERR_LAYOUT`, `ERR_NOT_OWNER` (may not read), `ERR_UNSUPPORTED`. */
  static open(file: string): Spectator {
    return notYet();
  }
  readonly path: string = "";
  readonly size: number = 0;
  readonly layout: number = 0;
  close(): void {}
  stats(): SpectatorStats {
    return notYet();
  }
  census(): CensusReport {
    return notYet();
  }
  segments(): SegmentReport[] {
    return notYet();
  }
  /** Entries and ghosts of `parts` equal parts of the index. */
  occupancy(parts?: number): { room: number; parts: { live: number; ghosts: number }[] } {
    return notYet();
  }
  participants(): SeatReport[] {
    return notYet();
  }
  holds(): Hold[] {
    return notYet();
  }
  keys(options?: KeysOptions): Iterable<KeyReport> {
    return notYet();
  }
  entry(key: string | Uint8Array, namespace?: readonly string[]): EntryReport | undefined {
    return notYet();
  }
  verify(): Verification {
    return notYet();
  }
}
