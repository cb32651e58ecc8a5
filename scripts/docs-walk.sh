#!/usr/bin/env bash
# Starts a demo of its own and lets a headless Chromium walk its /docs as an integrator does: tools/walk/walk.mjs. The
# screenshots of docs/screenshots are taken anew. Needs Node.js, npm's registry once, and a chromium (CHROMIUM names it).
set -euo pipefail
cd "$(dirname "$0")/.."
modules=$PWD/.cache/docs-walk
mkdir -p "$modules" docs/screenshots
cp tools/walk/package.json tools/walk/package-lock.json tools/walk/walk.mjs "$modules/"
npm ci --prefix "$modules" --ignore-scripts --no-audit --no-fund --silent

program=${PAYMENTS_PROGRAM:-}
if [[ -z $program ]]; then
  go build -o .cache/payments-docs-walk ./cmd/payments
  program=.cache/payments-docs-walk
fi
data=$(mktemp -d)
PAYMENTS_DATA_DIR=$data "$program" demo >"$data/demo.log" 2>&1 &
demo=$!
cleanup() {
  kill "$demo" 2>/dev/null && wait "$demo" || true
  rm -rf "$data"
}
trap cleanup EXIT
for _ in {1..900}; do
  [[ -e $data/demo.env ]] && break
  kill -0 "$demo" 2>/dev/null || break
  sleep 0.1
done
if [[ ! -e $data/demo.env ]]; then
  echo "the demo did not get ready:" >&2
  tail -n 20 "$data/demo.log" >&2
  exit 1
fi
set -a
# shellcheck source=/dev/null
. "$data/demo.env"
set +a
timeout "${WITHIN:-300}" node "$modules/walk.mjs" docs/screenshots
