/**
 * One cache for all threads of a piscina pool. A result that one thread has computed is not computed again by any thread.
 *
 *     node examples/01-threads/main.mjs
 */

import { createCache } from "cache-machine";
import { Piscina } from "piscina";

const cache = createCache({ size: "4mb" });
const pool = new Piscina({
  filename: new URL("worker.mjs", import.meta.url).href,
  workerData: { cache: cache.handle },
  minThreads: 2,
  maxThreads: 2,
});

const numbers = Array.from({ length: 8 }, (_, i) => 9_007_199_254_740_881 - 2 * i);

for (const round of ["first", "second"]) {
  const start = performance.now();
  const answers = await Promise.all(numbers.map((number) => pool.run(number)));
  const computed = answers.filter(({ by }) => by === "computed").length;
  const others = answers.filter(({ by }) => by === "another thread").length;
  const ms = (performance.now() - start).toFixed(1);
  console.log(
    `${round} round: ${computed} computed, ${8 - computed} from the cache (${others} by another thread), ${ms} ms`,
  );
}

// The cache needs no cleanup: its memory is freed with the last thread that uses it.
await pool.destroy();
