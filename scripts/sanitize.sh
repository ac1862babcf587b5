#!/bin/sh
# Runs the engine's tests under AddressSanitizer, ThreadSanitizer and Miri. Not part of `npm test`.
#
#   sh scripts/sanitize.sh [asan] [tsan] [miri]     all three: at most 40 minutes, plus the builds of the first run
#   SEED=… repeats a run; SCALE=… runs more or fewer rounds than the defaults below
#
# asan  finds accesses outside of the region, which is one allocation in the native build. It cannot find wrong accesses inside.
# tsan  finds data races of plain accesses. The native build copies with relaxed atomic words, so tsan says nothing about the bulk
#       copies of the WebAssembly build. It ignores fences, and a wrong memory order of atomics is no data race.
# miri  finds undefined behaviour, and lets relaxed loads return old values. It is so slow that only short tests are possible.
#
# Each tool must first report a test that is broken on purpose.
set -eu

say() { echo "sanitize: $*"; }
fail() { say "FAILED: $*" >&2; exit 1; }

[ "$(uname -sm)" = "Linux x86_64" ] || fail "written for Linux on x86_64"
command -v rustup >/dev/null || fail "needs rustup (https://rustup.rs): the runtimes and Miri come with its nightly toolchain"
bin=$(dirname "$(rustup which --toolchain nightly rustc 2>/dev/null || true)")
if [ ! -x "$bin/cargo-miri" ] || [ ! -e "$bin/../lib/rustlib/src/rust/library/std" ]; then
  rustup toolchain install nightly --profile minimal --component rust-src --component miri || fail "no nightly toolchain"
  bin=$(dirname "$(rustup which --toolchain nightly rustc)")
fi
command -v cc >/dev/null || { [ "$(id -u)" -eq 0 ] && apt-get install -y -q gcc libc6-dev; } || fail "needs a C linker: apt-get install gcc libc6-dev"
PATH="$bin:$PATH"
unset RUSTC RUSTFLAGS CARGO_ENCODED_RUSTFLAGS RUSTUP_TOOLCHAIN RUSTC_BOOTSTRAP

root=$(cd "$(dirname "$0")/.." && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/cache-machine/sanitize"
crate="$cache/wasm"
log="$cache/log"
target=x86_64-unknown-linux-gnu
export SEED="${SEED:-1}" RUST_BACKTRACE=0 CARGO_TERM_QUIET=true
# A copy of the crate, because the broken tests do not belong in the repository.
rm -rf "$crate"
mkdir -p "$crate"
cp -r "$root/wasm/src" "$root/wasm/tests" "$root/wasm/Cargo.toml" "$root/wasm/Cargo.lock" "$crate"
cat >"$crate/tests/teeth.rs" <<'RUST'
use cache_machine_core::{Region, format};
use std::alloc::{Layout, alloc_zeroed};

const MIB: u32 = 1 << 20;

fn region(allocated: usize) -> (usize, Region) {
    let base = unsafe { alloc_zeroed(Layout::from_size_align(allocated, 64).unwrap()) };
    (base.expose_provenance(), unsafe { Region::new(base, MIB) }.unwrap())
}

#[test]
fn outside() {
    format(&region(1 << 12).1, [1, 2]);
}

#[test]
fn race() {
    let (base, region) = region(MIB as usize);
    let plain = std::thread::spawn(move || {
        for word in 0..512 {
            unsafe { std::ptr::with_exposed_provenance_mut::<u64>(base).add(word).write(1) }
        }
    });
    format(&region, [1, 2]);
    plain.join().unwrap();
}
RUST

# Two threads that count, and read each other's values. Short enough for Miri.
cat >"$crate/tests/short.rs" <<'RUST'
#[allow(dead_code)]
#[path = "engine/harness.rs"]
mod harness;
use harness::*;

#[test]
fn two_threads() {
    let world = World::new(MIB);
    std::thread::scope(|scope| {
        for me in 0..2u8 {
            let world = &world;
            scope.spawn(move || {
                let mut cache = Cache::join(world);
                let mut newest = 0;
                for i in 1..20u8 {
                    cache.increment(b"count", 1.0, 0.0, &PLAIN).unwrap();
                    cache.set(&[me], &[i; 24]).unwrap();
                    if let Some(got) = cache.get(&[1 - me]) {
                        assert!(got.value == [got.value[0]; 24] && got.value[0] >= newest, "{:?} after {newest}", got.value);
                        newest = got.value[0];
                    }
                }
                cache.leave();
            });
        }
    });
    let mut cache = Cache::join(&world);
    assert_eq!(cache.get(b"count").unwrap().number(), 38.0);
}
RUST

# teeth <part of the report> <test> <command …>: the command must fail with that report.
teeth() {
  words=$1 test=$2
  shift 2
  if timeout 300 "$@" "$test" >"$log" 2>&1; then fail "the broken test '$test' was not noticed"; fi
  grep -q "$words" "$log" || { tail -20 "$log" >&2; fail "the broken test '$test' did not end with '$words'"; }
  say "reports '$words' for the test that is broken on purpose"
}

# run <name> <seconds> <command …>
run() {
  name=$1 seconds=$2
  shift 2
  start=$(date +%s)
  code=0
  timeout "$seconds" "$@" >"$log" 2>&1 || code=$?
  grep -E '^test .*(FAILED|failed)|panicked at|watchdog:|^WARNING: ThreadSan|^SUMMARY|^error: Undefined' "$log" || true
  [ "$code" -ne 124 ] || fail "$name did not end within $seconds s; log: $log"
  [ "$code" -eq 0 ] || fail "$name, SEED=$SEED SCALE=$SCALE, exit code $code; log: $log"
  # Schedules that run in parallel may write into the same line.
  tests=$(grep -oE '[0-9]+ passed' "$log" | sed 's/ passed//' | paste -sd+)
  [ -n "$tests" ] && [ "$(($tests))" -gt 0 ] || fail "$name ran no test"
  say "$name: $(($tests)) tests without a finding in $(($(date +%s) - start)) s (SEED=$SEED SCALE=$SCALE)"
  total=$((total + $tests))
}

# Builds the test program $1 with the current flags; prints its path.
program() {
  (cd "$crate" && cargo test -Zbuild-std --locked --no-run --target $target --features faults --test "$1" \
    --message-format json 2>"$log") | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1
}

build() {
  teeth_program=$(program teeth)
  engine=$(program engine)
  [ -x "$engine" ] && [ -x "$teeth_program" ] || { tail -20 "$log" >&2; fail "$1 could not be built"; }
}

given_scale="${SCALE:-}"
total=0
[ $# -gt 0 ] || set -- asan tsan miri
for what in "$@"; do
  export CARGO_TARGET_DIR="$cache/target-$what"
  case "$what" in
    asan)
      # Without the models: their tasks run on stacks that asan does not know.
      export SCALE="${given_scale:-0.2}" RUSTFLAGS="-Zsanitizer=address"
      build asan
      teeth "heap-buffer-overflow" outside "$teeth_program"
      run asan 720 "$engine" --skip models::
      ;;
    tsan)
      # Without tests of a single thread, and without those whose watchdog is too short for tsan.
      export SCALE="${given_scale:-0.2}" RUSTFLAGS="-Zsanitizer=thread"
      build tsan
      teeth "ThreadSanitizer: data race" race "$teeth_program"
      run tsan 600 "$engine" threads:: interleave:: frozen:: promises::a_crowd \
        --skip a_zombie_does_not_write_into_another_life --skip overwriting_together_evicts_nothing
      ;;
    miri)
      export SCALE="${given_scale:-0.01}" RUSTFLAGS="" MIRIFLAGS="-Zmiri-disable-isolation"
      miri="cargo miri test --locked --features faults"
      cd "$crate"
      teeth "Undefined Behavior" outside $miri --test teeth --
      teeth "Data race detected" race $miri --test teeth --
      # Each seed chooses another schedule and other old values.
      export MIRIFLAGS="$MIRIFLAGS -Zmiri-many-seeds=0..8"
      run "miri, eight schedules" 600 $miri --test short
      export MIRIFLAGS="-Zmiri-disable-isolation"
      run "miri, single threads" 300 $miri --test engine -- only_a_region_of_this_layout an_entry_that_points_nowhere \
        a_counter_left_odd
      ;;
    *) fail "unknown: $what; there are asan, tsan and miri" ;;
  esac
done
say "OK: $total test runs without a finding ($*)"
