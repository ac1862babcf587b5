/**
 * Runs the driver in a process of its own, so that V8 can run without helper threads. `fork` it with a plan as its argument; it sends
 * the result or the violation. It ends early and cleans up when its parent has ended.
 */
import { checkedRound } from "./driver.mjs";

process.on("SIGINT", () => {});
const until = () => !process.connected;
let answer;
try {
  answer = { result: await checkedRound({ ...JSON.parse(process.argv[2]), until }) };
} catch (error) {
  answer = { broken: error.name === "Violation" ? error.message : error.stack };
}
if (process.connected) {
  process.send(answer);
  process.disconnect();
}
