#!/bin/sh
# Installs the Debian packages that scripts/build-native.mjs needs: C compilers and linkers for x86-64 and ARM64, without a C
# library. Does nothing if both compilers are installed.
set -eu

packages=""
[ -n "$(command -v x86_64-linux-gnu-gcc)" ] || packages="$packages gcc-x86-64-linux-gnu"
[ -n "$(command -v aarch64-linux-gnu-gcc)" ] || packages="$packages gcc-aarch64-linux-gnu"

if [ -z "$packages" ]; then
  echo "native toolchain: already installed"
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "native toolchain: this script supports Debian only; on other systems install compilers with these names:$packages" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "native toolchain: missing$packages; run this as root: sudo sh $0" >&2
  exit 1
fi

# On a machine of its own processor, a compiler is in the package gcc, but has the name of the cross compiler.
[ "$(dpkg --print-architecture)" = amd64 ] && packages=$(echo "$packages" | sed 's/gcc-x86-64-linux-gnu/gcc/')
[ "$(dpkg --print-architecture)" = arm64 ] && packages=$(echo "$packages" | sed 's/gcc-aarch64-linux-gnu/gcc/')
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# Not quoted: one word per package.
# shellcheck disable=SC2086
apt-get install -y -q --no-install-recommends $packages
