/** `who` and `verify`: the participants of a cache with what they hold, and whether its memory is sound. */

import type { Command } from "commander";
import type { Hold, SeatReport } from "../../inspect/reports.ts";
import type { CommonOptions, Context } from "../context.ts";
import { type ExitCode, FINE, FOUND } from "../failure.ts";
import { type Column, count, duration, table, visible } from "../render.ts";

export function register(program: Command, context: Context): void {
  const command = (name: string, summary: string): Command =>
    context.command(name, "[cache]", summary).argument("[cache]", "name of the cache");
  program.addCommand(
    command("who", "list the participants, what they hold and what they wait for").action(context.action(who)),
  );
  program.addCommand(
    command("verify", "check the memory of a cache; exit code 1 when something is broken").action(
      context.action(verify),
    ),
  );
  const { output } = context;

  async function who(name: string | undefined, options: CommonOptions): Promise<void> {
    await context.look(name, options, async (spectator) => {
      const holds = spectator.holds();
      const seats = spectator.participants();
      const holdsOf = (seat: SeatReport): Hold[] => holds.filter((hold) => hold.seat === seat.seat);
      if (options.json) {
        await output.json(seats.map((seat) => ({ ...seat, holds: holdsOf(seat) })));
        return;
      }
      if (seats.length === 0) return context.note("Nobody has the cache open.");
      const rows = seats.map((seat) => rowOf(seat, holdsOf(seat)));
      await output.lines(...table(COLUMNS, rows, { width: output.width, title: output.colours.bold }));
    });
  }

  async function verify(name: string | undefined, options: CommonOptions): Promise<ExitCode> {
    return context.look(name, options, async (spectator) => {
      const { broken, certain } = spectator.verify();
      if (options.json) await output.json({ broken, certain });
      else {
        await output.lines(...broken.map((each) => output.colours.red(visible(each))));
        const hint = certain ? "" : " Participants have changed it meanwhile: look again when it is quiet.";
        await output.lines(broken.length === 0 ? `Nothing is broken.${hint}` : `${broken.length} broken.${hint}`);
      }
      return broken.length === 0 ? FINE : FOUND;
    });
  }
}

const COLUMNS: readonly Column[] = [
  { title: "pid", align: "right" },
  { title: "thread", align: "right" },
  { title: "state" },
  { title: "hits", align: "right" },
  { title: "near", align: "right" },
  { title: "misses", align: "right" },
  { title: "sets", align: "right" },
  { title: "holds and waits for", shrinks: true },
];

function rowOf(seat: SeatReport, holds: readonly Hold[]): string[] {
  const { pid, threadId, state, hits, nearHits, misses, sets, writing, waiting } = seat;
  const words = holds.map(wordsOf);
  if (writing) words.push("writes a large value");
  if (waiting) words.push("waits for a change");
  return [
    ...[pid === 0 ? "?" : String(pid), threadId === 0 ? "main" : String(threadId), state],
    ...[count(hits), count(nearHits), count(misses), count(sets), words.join(", ") || "-"],
  ];
}

/** What somebody holds, in words. */
function wordsOf({ kind, number, name, hash, deadline, pending, overtaken }: Hold): string {
  const what = name !== undefined ? `"${visible(name)}"` : (hash ?? String(number ?? ""));
  const words = `${pending ? "waits for " : ""}${kind} ${what}`;
  const over = overtaken ? " (overtaken)" : "";
  if (deadline === undefined) return words + over;
  const left = deadline >= 0 ? `${duration(deadline)} left` : `overdue by ${duration(-deadline)}`;
  return `${words} (${left})${over}`;
}
