/**
 * One fire in a process of its own, where V8 can be told to do without helper threads: `fork` it with a plan, and it
 * answers with the result or with what was broken. Ends early and tidily when whoever started it is gone.
 */
import { fire } from "./driver.mjs";

process.on("SIGINT", () => {});
const until = () => !process.connected;
let answer;
try {
  answer = { result: await fire({ ...JSON.parse(process.argv[2]), until }) };
} catch (error) {
  answer = { broken: error.name === "Violation" ? error.message : error.stack };
}
if (process.connected) {
  process.send(answer);
  process.disconnect();
}
