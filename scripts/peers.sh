#!/usr/bin/env bash
# Builds the real peers of the interop tests and benchmarks, once per content of test/interop/peers, outside of the
# checkout, fetches Deno and Bun (test/interop/runtimes), and writes all their absolute paths to peers.json there. Prints
# what it did on stderr and the path of peers.json on stdout. A peer whose toolchain is missing is skipped and named;
# RHIZA_PEERS_REQUIRED=1 makes that exit 1.
#
# Needs bash 4 and GNU coreutils.
#
#   RHIZA_PEERS            where builds are kept (default: $XDG_CACHE_HOME/rhiza-peers or ~/.cache/rhiza-peers)
#   RHIZA_PEERS_REQUIRED   1: every peer must be there
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
sources=$here/test/interop/peers
root=${RHIZA_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/rhiza-peers}
say() { echo "peers: $*" >&2; }

# Each peer has a hash of its own, so that a changed line of one does not rebuild the others. Kubo depends on the
# module files alone.
hash_of() { (cd "$sources" && sha256sum "$@") | sha256sum | cut -c1-16; }
files_of() { (cd "$sources" && find "$1" -type f -not -path '*/node_modules/*' -not -path '*/__pycache__/*' | LC_ALL=C sort); }
kubo_hash=$(hash_of go/go.mod go/go.sum)
mapfile -t go_files < <(files_of go)
mapfile -t js_files < <(files_of js)
mapfile -t py_files < <(files_of py)
mapfile -t rust_files < <(files_of rust)
go_hash=$(hash_of "${go_files[@]}")
js_deps_hash=$(hash_of js/package.json js/package-lock.json)
py_deps_hash=$(hash_of py/requirements.txt)
runtimes_hash=$(hash_of ../runtimes/package.json ../runtimes/package-lock.json)
rust_deps_hash=$(hash_of rust/Cargo.toml)
rust_hash=$(hash_of "${rust_files[@]}")
script_hash=$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-16)
all_hash=$(cd "$sources" && sha256sum "${go_files[@]}" "${js_files[@]}" "${py_files[@]}" "${rust_files[@]}" ../runtimes/package*.json | sha256sum | cut -c1-16)
out=$root/$all_hash
[[ ${1:-} == --where ]] && { echo "$out/peers.json"; exit 0; }

mkdir -p "$out" "$root/log"

# One build at a time; a second caller waits and finds everything done. Without flock the atomic renames still hold.
if command -v flock >/dev/null; then
  exec 9>"$root/lock"
  flock 9
fi

skip() { say "skips $1: $2"; }
minutes() { awk -v s="$1" 'BEGIN { printf "%.1f min", s / 60 }'; }

# build NAME TARGET COMMAND...: runs COMMAND with $tmp as the folder to fill, then renames it to TARGET.
build() {
  local name=$1 target=$2 start=$SECONDS
  shift 2
  if [[ -e $target/.done ]]; then
    return 0
  fi
  rm -rf "$target"
  tmp=$(mktemp -d "$target.XXXXXX")
  say "building $name"
  if ! "$@" >"$root/log/$name.log" 2>&1; then
    rm -rf "$tmp"
    tail -n 20 "$root/log/$name.log" >&2
    skip "$name" "the build failed, see $root/log/$name.log"
    return 1
  fi
  touch "$tmp/.done"
  mv -T "$tmp" "$target" 2>/dev/null || rm -rf "$tmp"
  say "built $name in $(minutes $((SECONDS - start)))"
}

# The module is copied, so that -mod=mod can't touch the checkout.
go_build() { # OUTPUT PACKAGE
  local src
  src=$(mktemp -d) && cp "$sources"/go/* "$src" || return 1
  (cd "$src" && CGO_ENABLED=0 GOFLAGS='-mod=mod -buildvcs=false' go build -tags nofuse -ldflags='-s -w' -o "$tmp/$1" "$2")
  local code=$?
  rm -rf "$src"
  return $code
}
build_kubo() { go_build ipfs github.com/ipfs/kubo/cmd/ipfs; }
build_go() { go_build peer .; }
build_js() {
  cp "$sources"/js/{package.json,package-lock.json,.npmrc} "$tmp" &&
    (cd "$tmp" && npm ci --no-audit --no-fund && node_modules/.bin/node --version)
}
# Not npm ci: it wants the packages of all platforms in the lock file, and a registry may lack those of others.
build_runtimes() {
  cp "$sources"/../runtimes/{package.json,package-lock.json} "$tmp" &&
    (cd "$tmp" && npm install --no-audit --no-fund && node_modules/.bin/deno --version && node_modules/.bin/bun --version)
}
build_py() {
  python3 -m venv "$tmp/venv" && "$tmp/venv/bin/pip" install --disable-pip-version-check -q -r "$sources/py/requirements.txt" &&
    # Installed scripts name the folder they were made in, but python itself works from anywhere.
    "$tmp/venv/bin/python" -c 'import libp2p'
}
# Its dependencies are built once per Cargo.toml, in a folder that stays: a changed source rebuilds the peer alone. A
# Cargo.lock is made there, as one in the checkout would name a registry; the exact versions are in Cargo.toml.
build_rust() {
  local work=$root/rust-deps-$rust_deps_hash
  mkdir -p "$work" && rm -rf "$work/src" && cp -r "$sources"/rust/{Cargo.toml,src} "$work" &&
    CARGO_TARGET_DIR=$work/target cargo build --release --manifest-path "$work/Cargo.toml" &&
    cp "$work/target/release/peer" "$tmp/peer"
}

kubo=$root/kubo-$kubo_hash
go=$root/go-$go_hash
js=$root/js-$js_deps_hash
py=$root/py-$py_deps_hash
rust=$root/rust-$rust_hash
runtimes=$root/runtimes-$runtimes_hash

# Go and Rust keep the cores busy and the others mostly wait for the network, so they run side by side.
(
  if command -v npm >/dev/null; then
    build js-peer "$js" build_js
    build runtimes "$runtimes" build_runtimes
  else
    skip js-peer 'no npm on PATH'
    skip runtimes 'no npm on PATH'
  fi
  if command -v python3 >/dev/null; then build py-peer "$py" build_py; else skip py-peer 'no python3 on PATH'; fi
) &
if command -v go >/dev/null; then
  build go-peer "$go" build_go
  build kubo "$kubo" build_kubo
else
  skip go-peer 'no go on PATH'
  skip kubo 'no go on PATH'
fi
if command -v cargo >/dev/null; then build rust-peer "$rust" build_rust; else skip rust-peer 'no cargo on PATH'; fi
wait

quoted() { if [[ -n $1 ]]; then printf '"%s"' "${1//\"/\\\"}"; else printf null; fi; }
path_of() { if [[ -e $1 ]]; then echo "$1"; fi; }

# The sources of js and py run from a copy beside their dependencies, where their imports resolve.
if [[ -e $js/.done ]]; then
  mkdir -p "$js/src-$all_hash" && cp "$sources"/js/*.js "$js/src-$all_hash"
fi
if [[ -e $py/.done ]]; then
  mkdir -p "$py/src-$all_hash" && cp "$sources"/py/*.py "$py/src-$all_hash"
fi

cat >"$out/peers.json.$$" <<JSON
{
  "ipfs": $(quoted "$(path_of "$kubo/ipfs")"),
  "goPeer": $(quoted "$(path_of "$go/peer")"),
  "rustPeer": $(quoted "$(path_of "$rust/peer")"),
  "jsDir": $(quoted "$(path_of "$js/src-$all_hash")"),
  "jsNode": $(quoted "${RHIZA_NODE:-$(path_of "$js/node_modules/.bin/node")}"),
  "pyDir": $(quoted "$(path_of "$py/src-$all_hash")"),
  "python": $(quoted "$(path_of "$py/venv/bin/python")"),
  "deno": $(quoted "$(path_of "$runtimes/node_modules/.bin/deno")"),
  "bun": $(quoted "$(path_of "$runtimes/node_modules/.bin/bun")"),
  "script": "$script_hash"
}
JSON
mv "$out/peers.json.$$" "$out/peers.json"
echo "$out/peers.json"
missing=()
for peer in "$kubo" "$go" "$js" "$py" "$rust" "$runtimes"; do
  [[ -e $peer/.done ]] || missing+=("$(basename "$peer")")
done
if ((${#missing[@]} > 0)) && [[ ${RHIZA_PEERS_REQUIRED:-} == 1 ]]; then
  say "RHIZA_PEERS_REQUIRED=1, and these are missing: ${missing[*]}"
  exit 1
fi
