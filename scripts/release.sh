#!/usr/bin/env bash
# Replaces the containers of the profile `scale` by ones of the image as it is built now, one at a
# time: the next one is stopped when the one before it is ready. Clients ask by the gateway.
set -euo pipefail
cd "$(dirname "$0")/.."
compose() { docker compose --profile scale "$@"; }

compose build
compose run --rm -T --no-deps migrate # the version that still runs works on the new schema
for role in api saga relay projector webhooks reports; do
  for container in $(compose ps -q "$role"); do
    # It drains within 10 s.
    docker stop --time 15 "$container" >/dev/null
    docker rm "$container" >/dev/null
    compose up --detach --no-deps --no-recreate --wait "$role"
    sleep 3 # the gateway asks for names once a second, and checks twice
  done
done
compose up --detach --wait
