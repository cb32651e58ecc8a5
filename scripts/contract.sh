#!/usr/bin/env bash
# Starts a demo of its own, with its data in a temporary directory and free ports, and lets
# Schemathesis hold it against its OpenAPI document: every check, every phase, the links included.
# EXAMPLES per operation bound it to about a minute. SEED makes other requests than those that
# every change is held to. Exits 3 when Schemathesis cannot be had here.
set -euo pipefail
cd "$(dirname "$0")/.."
requirements=tools/openapi/requirements.txt
venv=$PWD/.cache/schemathesis

if ! cmp -s "$requirements" "$venv/requirements.txt"; then
  rm -rf "$venv"
  if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$requirements"; } \
    >.cache/schemathesis.log 2>&1; then
    tail -n 5 .cache/schemathesis.log >&2
    rm -rf "$venv"
    exit 3
  fi
  cp "$requirements" "$venv/requirements.txt"
fi

go build -o .cache/payments-contract ./cmd/payments
data=$(mktemp -d)
# Nothing is limited: what is looked for is what the limits would hide.
PAYMENTS_DATA_DIR=$data PAYMENTS_RATE_LIMIT=0 PAYMENTS_STRANGER_LIMIT=0 .cache/payments-contract demo >"$data/demo.log" 2>&1 &
demo=$!
cleanup() {
  kill "$demo" 2>/dev/null && wait "$demo" || true
  rm -rf "$data"
}
trap cleanup EXIT

for _ in {1..600}; do
  [[ -e $data/demo.env ]] && break
  if ! kill -0 "$demo" 2>/dev/null; then
    break
  fi
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
# One worker: Python 3.11's parser, which the generator calls, fails now and then when two threads are in it (gh-106905).
if ! PYTHONPATH=tools/openapi PYTHONDONTWRITEBYTECODE=1 SCHEMATHESIS_HOOKS=hooks timeout 600 "$venv/bin/schemathesis" \
  --config-file tools/openapi/schemathesis.toml run "$PAYMENTS_URL/openapi.yaml" --workers 1 --max-examples "${EXAMPLES:-40}" --seed "${SEED:-1}"; then
  grep -h '"level":"ERROR"\|level=ERROR' "$data/serve.log" | tail -n 20 >&2 || true
  exit 1
fi
# What it left behind has to be consistent, too.
.cache/payments-contract audit
