import { BOARD, LOCK_FILE } from "../files.mjs";

/** @type {import("../index.mjs").PackageMutant[]} */
export default [
  // ---- who is alive
  {
    name: "own-seats-are-taken-again",
    breaks: "L3",
    what: "a participant takes itself for dead",
    file: "src/liveness/membership.ts",
    find: "!this.#held.has(seat) && this.tryTake(seat);",
    replace: "this.tryTake(seat);",
    first: LOCK_FILE,
  },
  {
    name: "a-thread-of-that-id-lives",
    breaks: "death costs nothing",
    what: "a thread lives as long as any thread has its id",
    file: "src/liveness/linux.ts",
    find: "return tokenOf(other >> START_TIME_BITS) !== other;",
    replace: "return tokenOf(other >> START_TIME_BITS) === 0n;",
    first: BOARD,
  },
  {
    name: "no-procfs-is-a-proof",
    breaks: "L3",
    what: "a thread that procfs does not show is dead, also where there is no procfs",
    file: "src/liveness/linux.ts",
    find: "return tokenOf(self) === token;",
    replace: "return tokenOf(self) !== -1n || token === 0n;",
    also: [
      [
        "      } catch {\n        return false;\n      }\n    },\n  };\n}\n\nfunction isNoSuchThread",
        "      } catch {\n        return true;\n      }\n    },\n  };\n}\n\nfunction isNoSuchThread",
      ],
    ],
    first: BOARD,
  },
  {
    name: "no-descriptor-is-no-procfs",
    breaks: "death costs nothing",
    what: "a thread that joins when no descriptor is left gets a name under which its death is never proved",
    file: "src/liveness/linux.ts",
    find: 'if (code === "EMFILE" || code === "ENFILE") throw',
    replace: 'if (code === "ENOSYS") throw',
    first: BOARD,
    filter: "procfs",
  },
  {
    name: "any-owner-is-dead",
    breaks: "L3",
    what: "a seat of a board can be taken from any owner, also from a living thread",
    file: "src/liveness/board.ts",
    find: "if (owner !== 0n && !this.#thread.provesDead(owner)) return false;",
    replace: "",
    first: BOARD,
  },
  {
    name: "dead-threads-live",
    breaks: "death costs nothing",
    what: "the seat of a terminated worker never becomes free",
    file: "src/liveness/board.ts",
    find: "if (owner !== 0n && !this.#thread.provesDead(owner)) return false;",
    replace: "if (owner !== 0n) return false;",
    first: BOARD,
  },
  {
    name: "seats-of-others-are-given-back",
    breaks: "L3",
    what: "a participant frees the seat of another",
    file: "src/liveness/membership.ts",
    find: "    if (!this.#held.has(seat)) return;\n    this.giveBack(seat);",
    replace: "    this.giveBack(seat);",
    first: BOARD,
  },
];
