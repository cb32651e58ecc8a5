#!/usr/bin/env bash
# Lints the OpenAPI document with Redocly, at the version of tools/openapi/package-lock.json.
# Exits 3 when Redocly cannot be had here: no Node.js that it runs on, or no npm registry.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=.cache/redocly

if ! command -v npm >/dev/null || ! node -e '
  const [major, minor] = process.versions.node.split(".").map(Number)
  process.exit(major > 22 || major === 22 && minor >= 12 || major === 20 && minor >= 19 ? 0 : 1)'; then
  echo "there is no Node.js 20.19 or 22.12 here" >&2
  exit 3
fi
if ! cmp -s tools/openapi/package-lock.json "$cache/package-lock.json" || [[ ! -x $cache/node_modules/.bin/redocly ]]; then
  rm -rf "$cache" && mkdir -p "$cache"
  cp tools/openapi/package.json "$cache"
  if ! (cd "$cache" && cp ../../tools/openapi/package-lock.json . && npm ci --ignore-scripts --no-audit --no-fund) >.cache/redocly.log 2>&1; then
    tail -n 5 .cache/redocly.log >&2
    rm -rf "$cache"
    exit 3
  fi
fi
REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true \
  "$cache/node_modules/.bin/redocly" lint --config tools/openapi/redocly.yaml internal/api/openapi.yaml
