#!/bin/sh
# Starts Postgres in docker compose's stack. The image runs its init files only where there is no
# database yet, so one that failed or was cut off would never be finished. 00-begin.sh leaves a mark
# that 99-end.sh takes away. A database with the mark has no role of the service and no payment.
set -eu

if [ -e "$PGDATA/payments.initializing" ]; then
  echo "The first start of this database did not finish, so it holds no payment: it is made again." >&2
  find "$PGDATA" -mindepth 1 -delete
fi
exec docker-entrypoint.sh "$@"
