/**
 * A process that exports or imports: `node worker.mjs export|import|fill NAME FILE [SECONDS]`. It says `ready` before it begins, and
 * prints the result, or the code of the error, as JSON.
 */
import { exportCache, importCache, openCache } from "cache-machine";

const [what, name, file] = process.argv.slice(2);
const cache = openCache(name);
console.log("ready");
try {
  if (what === "export") {
    for (;;) console.log(JSON.stringify(await exportCache(cache, file)));
  } else if (what === "export once") console.log(JSON.stringify(await exportCache(cache, file)));
  else if (what === "import") console.log(JSON.stringify(await importCache(cache, file)));
} catch (error) {
  console.log(JSON.stringify({ code: error.code, message: error.message }));
}
