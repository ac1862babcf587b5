/** An older version of the package has left its file behind. Its layout is not this one. */

import { readdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { directory, open, ready } from "./case.mjs";

open().close();
const file = readdirSync(directory).find((name) => /-app\.v\d+/.test(name));
const old = file.replace(/\.v\d+/, ".v5");
renameSync(join(directory, file), join(directory, old));
setInterval(() => {}, 1000);
ready({ file: join(directory, old) });
