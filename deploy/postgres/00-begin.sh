# See start.sh.
touch "$PGDATA/payments.initializing"
