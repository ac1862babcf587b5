#!/bin/sh
# Installs the Debian packages that scripts/build-wasm.mjs needs: rustc with the sources of its standard library, which is compiled
# again with atomics, and a linker for WebAssembly. Does nothing if all of them are installed.
set -eu

packages="rustc-web cargo-web rust-web-src lld-22"
missing=""
for package in $packages; do
  case "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)" in
    installed) ;;
    *) missing="$missing $package" ;;
  esac
done

if [ -z "$missing" ]; then
  echo "wasm toolchain: already installed ($packages)"
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "wasm toolchain: this script supports Debian only; on other systems use a rustup nightly with rust-src:" >&2
  echo "  rustup toolchain install nightly --component rust-src" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "wasm toolchain: missing$missing; run this as root: sudo sh $0" >&2
  exit 1
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# Not quoted: one word per package.
# shellcheck disable=SC2086
apt-get install -y -q --no-install-recommends $missing
