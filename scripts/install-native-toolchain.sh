#!/bin/sh
# Installs what scripts/build-native.mjs needs of Debian: the C compilers and linkers for both processors, without a C
# library. Does nothing when all of it is there.
set -eu

packages=""
[ -n "$(command -v x86_64-linux-gnu-gcc)" ] || packages="$packages gcc-x86-64-linux-gnu"
[ -n "$(command -v aarch64-linux-gnu-gcc)" ] || packages="$packages gcc-aarch64-linux-gnu"

if [ -z "$packages" ]; then
  echo "native toolchain: already installed"
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "native toolchain: this script knows Debian only; elsewhere install compilers under these names:$packages" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "native toolchain: missing$packages; run this as root: sudo sh $0" >&2
  exit 1
fi

# Each is called like the other's cross compiler on the machine that it is native to.
[ "$(dpkg --print-architecture)" = amd64 ] && packages=$(echo "$packages" | sed 's/gcc-x86-64-linux-gnu/gcc/')
[ "$(dpkg --print-architecture)" = arm64 ] && packages=$(echo "$packages" | sed 's/gcc-aarch64-linux-gnu/gcc/')
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# Not quoted: one word per package.
# shellcheck disable=SC2086
apt-get install -y -q --no-install-recommends $packages
