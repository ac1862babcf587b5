/**
 * The clock of leases. All processes of a machine have to read the same time, also when somebody sets the wall clock: on Linux
 * `process.hrtime` of Node.js is CLOCK_MONOTONIC, which all processes share. In Bun and Deno it begins with the process, so there
 * the time since the machine was started is added, which is the same clock as long as the machine was not suspended. In a page the
 * time since 1970 by the monotonic clock is what its workers share. Captured when the package is loaded, so that fake timers of a
 * test do not stop it.
 */

/** The time in milliseconds. It means nothing but the distance to another time of this clock. */
export const machineTime: () => number = machineClock();

function machineClock(): () => number {
  const { performance } = globalThis;
  const sinceOrigin: () => number = performance.now.bind(performance);
  const { timeOrigin } = performance;
  if (typeof globalThis.process?.hrtime !== "function") return () => timeOrigin + sinceOrigin();
  const { hrtime, versions } = globalThis.process;
  if (versions.bun === undefined && versions.deno === undefined) {
    return () => {
      const [seconds, nanoseconds] = hrtime();
      return seconds * 1000 + nanoseconds / 1e6;
    };
  }
  let now = timeOrigin + sinceOrigin();
  try {
    const [seconds] = globalThis.process.getBuiltinModule("node:fs").readFileSync("/proc/uptime", "latin1").split(" ");
    now = Number(seconds) * 1000;
  } catch {
    // Without procfs there are no caches of processes.
  }
  const origin = now - sinceOrigin();
  return () => origin + sinceOrigin();
}
