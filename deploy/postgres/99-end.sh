# See start.sh.
rm "$PGDATA/payments.initializing"
