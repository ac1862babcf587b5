/** `doctor`. */
import type { Command } from "commander";
import type { Context } from "../context.ts";

export function register(_program: Command, _context: Context): void {}
