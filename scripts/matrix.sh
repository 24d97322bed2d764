#!/usr/bin/env bash
# Runs the unit tests on other versions of Node, each from its npm package in a temporary folder. A version that can't run
# TypeScript unbuilt runs the package test alone: that is what its users get.
#   scripts/matrix.sh [VERSION...]    default: 22.13.0 22 24 26
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
(($# > 0)) || set -- 22.13.0 22 24 26

work=$(mktemp -d)
# One test runs Node as another user.
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
code=0
for version in "$@"; do
  mkdir "$work/$version"
  npm install --prefix "$work/$version" --no-save --no-audit --no-fund --silent "node@$version" >"$work/log" 2>&1 ||
    { cat "$work/log"; code=1; continue; }
  node=$(node -p 'require("fs").realpathSync(process.argv[1])' "$work/$version/node_modules/node/bin/node")
  echo "== $("$node" --version)"
  only=()
  "$node" -e 'process.exit(process.features.typescript ? 0 : 1)' || only=(test/package.test.ts)
  "$node" node_modules/vitest/vitest.mjs run --project unit "${only[@]}" >"$work/log" 2>&1 ||
    { code=1; grep -aE 'FAIL|^.{0,12}Error' "$work/log" | head -n 40; }
  tail -n 1 "$work/log"
done
exit $code
