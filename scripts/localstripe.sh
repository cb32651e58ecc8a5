#!/usr/bin/env bash
# Serves localstripe, a stateful stand-in for Stripe, on a free port of the loopback
# interface, and prints its URL. It is installed once into .cache/localstripe.
# Exit code 3: it could not be had (no Python 3 with venv, or PyPI not reached).
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.cache/localstripe
wanted=scripts/localstripe/requirements.txt

unavailable() { echo "localstripe cannot be had: $1" >&2; exit 3; }

mkdir -p .cache
exec 9>"$venv.lock"
if command -v flock >/dev/null; then flock 9; fi
if ! cmp -s "$wanted" "$venv/installed.txt"; then
  rm -rf "$venv"
  log=.cache/localstripe.log
  command -v python3 >/dev/null || unavailable "python3 is not here"
  python3 -m venv "$venv" >"$log" 2>&1 || unavailable "python3 has no venv (see $log)"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --retries 1 --timeout 15 --requirement "$wanted" >"$log" 2>&1 ||
    unavailable "pip could not install it (see $log)"
  cp "$wanted" "$venv/installed.txt"
fi
exec 9>&-
exec "$venv/bin/python" scripts/localstripe/serve.py
