/**
 * The clock of leases. All processes of a machine have to read the same time, also when somebody sets the wall clock: on Linux
 * `process.hrtime` is CLOCK_MONOTONIC, which all processes share. In a page the time since 1970 by the monotonic clock is what
 * its workers share. Captured when the package is loaded, so that fake timers of a test do not stop it.
 */

const hrtime = globalThis.process?.hrtime;
const { performance } = globalThis;
const sinceOrigin: () => number = performance.now.bind(performance);
const { timeOrigin } = performance;

/** The time in milliseconds. It means nothing but the distance to another time of this clock. */
export const machineTime: () => number =
  typeof hrtime === "function"
    ? () => {
        const [seconds, nanoseconds] = hrtime();
        return seconds * 1000 + nanoseconds / 1e6;
      }
    : () => timeOrigin + sinceOrigin();
