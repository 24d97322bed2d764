#!/usr/bin/env bash
# Programs of the system that some tests drive: chromium (test/interop/browser.test.ts), redis-server
# (test/interop/testplan) and avahi (test/interop/mdns.test.ts). Installs what is missing through apt where it may, says what it did, and exits 1 when one is
# missing afterwards.
set -uo pipefail

missing=()
declare -A package=([avahi-browse]=avahi-utils [dbus-daemon]=dbus)
for program in chromium redis-server avahi-daemon avahi-browse dbus-daemon; do
  if path=$(command -v "$program"); then echo "system: $program is $path"; else missing+=("$program"); fi
done
((${#missing[@]} == 0)) && exit 0

if ! command -v apt-get >/dev/null; then
  echo "system: no apt-get here; missing: ${missing[*]}"
  exit 1
elif ((EUID != 0)); then
  echo "system: not root; missing: ${missing[*]}"
  exit 1
fi

echo "system: installing ${missing[*]} through apt"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
wanted=()
for program in "${missing[@]}"; do wanted+=("${package[$program]:-$program}"); done
trap 'rm -f "$log"' EXIT
for try in 1 2 3; do
  # A package that starts a service (redis-server) must not: the tests start their own.
  apt-get update -qq >"$log" 2>&1 &&
    RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${wanted[@]}" >>"$log" 2>&1 && break
  echo "system: apt failed ($try of 3)"
  tail -n 5 "$log"
  sleep 5
done
code=0
for program in "${missing[@]}"; do
  if path=$(command -v "$program"); then
    echo "system: installed $program: $path"
  else
    echo "system: could not install $program"
    code=1
  fi
done
exit $code
