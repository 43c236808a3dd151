# Sourced by the commands at the root: brings what they need, on stderr, once.
# shellcheck shell=bash

PANTALA_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Where Debian keeps mkfs and its like, which a user's PATH need not have.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf '%s\n' "$*" >&2; }
fail() {
  say "pantala: $*"
  exit 69
}

# npm packages, among them the pinned Node. Runs again when package-lock.json has changed.
setup_packages() {
  local stamp="$PANTALA_ROOT/node_modules/.pantala-setup" wanted
  wanted=$(cksum <"$PANTALA_ROOT/package-lock.json")
  [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return 0
  command -v npm >/dev/null || fail "npm is missing: install Node.js 20 or newer (with npm) and run this again"
  (
    flock 9
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && exit 0
    say "pantala: setting up (npm packages and Node 26, about 600 MB, once)"
    cd "$PANTALA_ROOT"
    # Lifecycle scripts stay off: every binary we need lies in its package.
    # Not "npm ci": it wants every platform's optional packages in the lock file, and not every mirror has them all.
    npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error >&2 || exit 1
    printf '%s\n' "$wanted" >"$stamp"
  ) 9>"$PANTALA_ROOT/.setup.lock" || fail "npm install failed; its output above says why"
}

# Prints the path of the pinned Node.
node_binary() {
  local arch
  case "$(uname -m)" in
    x86_64) arch=x64 ;;
    aarch64) arch=arm64 ;;
    *) fail "this machine's architecture $(uname -m) is not supported: x86_64 and aarch64 are" ;;
  esac
  local binary="$PANTALA_ROOT/node_modules/node-linux-$arch/bin/node"
  [ -x "$binary" ] || fail "the pinned Node is missing at $binary: remove node_modules and run this again"
  printf '%s\n' "$binary"
}

# Debian packages for demo and tests. Without root or apt-get it says what is missing and goes on: what needs them
# says so itself.
setup_system() {
  local package missing=()
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    say "pantala: not installed and not installable without root and apt-get: ${missing[*]}"
    return 0
  fi
  say "pantala: installing ${missing[*]}"
  local log
  log=$(mktemp)
  # A package's daemon must not start just because it was installed for a test.
  local policy=/usr/sbin/policy-rc.d made=''
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && made=yes
  fi
  (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}") >"$log" 2>&1
  local status=$?
  [ -n "$made" ] && rm -f "$policy"
  [ $status -eq 0 ] || { tail -n 20 "$log" >&2; say "pantala: apt-get failed (status $status); what needs these packages will say so"; }
  rm -f "$log"
}

DEMO_SYSTEM_PACKAGES=(docker-registry containerd runc iproute2 ethtool)
TEST_SYSTEM_PACKAGES=(
  "${DEMO_SYSTEM_PACKAGES[@]}" python3 nginx-light apache2-utils curl openssl systemd
  e2fsprogs xfsprogs btrfs-progs erofs-utils
)

# Replaces this shell with the pinned Node running a TypeScript file of the checkout.
run_node() {
  local node
  node=$(node_binary)
  export NODE_COMPILE_CACHE="${NODE_COMPILE_CACHE:-$PANTALA_ROOT/node_modules/.cache/compile}"
  exec "$node" --disable-warning=ExperimentalWarning "$@"
}
