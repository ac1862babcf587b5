/**
 * How a command ends: its exit code, and an error whose text is meant for people. A command returns its exit code or throws; index.ts
 * prints what was thrown.
 */

import { CacheError } from "../errors.ts";

/** The command has done what it was asked for. */
export const FINE = 0;
/** A key or a cache was not found, or a check has found something. */
export const FOUND = 1;
/** The command line is wrong. */
export const USAGE = 2;
/** The cache cannot be looked at or changed: permissions, another layout, no room, another platform. */
export const UNABLE = 3;

export type ExitCode = 0 | 1 | 2 | 3;

/** An error of one line with its remedy, and the exit code that goes with it. */
export class Failure extends Error {
  readonly exitCode: ExitCode;

  constructor(exitCode: ExitCode, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** The exit code for an error that a command has thrown. */
export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof Failure) return error.exitCode;
  if (error instanceof CacheError) return error.code === "ERR_CLOSED" ? FOUND : UNABLE;
  return error instanceof TypeError || error instanceof RangeError ? USAGE : UNABLE;
}
