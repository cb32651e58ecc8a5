-- +goose Up

-- A snapshot names transactions of one server. So each checkpoint says which server's it is: its
-- system identifier, which a restored dump does not have, and its timeline, which every promotion and every
-- recovery to a moment ago raises. Null is a checkpoint of before this migration.
SET LOCAL lock_timeout = '10s';
ALTER TABLE outbox_checkpoints ADD COLUMN system_identifier bigint, ADD COLUMN timeline int;

-- The server that this session is connected to. A standby has no timeline of its own.
-- +goose StatementBegin
CREATE FUNCTION server_identity(OUT system_identifier bigint, OUT timeline int) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT c.system_identifier,
        CASE WHEN NOT pg_is_in_recovery() THEN ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END
    FROM pg_control_system() c
$$;
-- +goose StatementEnd

-- A checkpoint proves what was published only on the server that it was written on. One of another
-- server, or one that names transactions which this server has not given out, has no done: whoever asks the view takes
-- nothing for published (the relay, the audit, retention and the age of the oldest unpublished event).
CREATE OR REPLACE VIEW outbox_cursors AS
SELECT s.shard, s.owner, s.epoch, c.n,
    CASE WHEN c.proven THEN c.done END AS done, CASE WHEN c.proven THEN c.page_snapshot END AS page_snapshot,
    c.page_position, c.page_end, c.system_identifier, c.timeline
FROM outbox_shards s LEFT JOIN LATERAL (
    SELECT k.*, coalesce(k.system_identifier = (SELECT h.system_identifier FROM pg_control_system() h), true)
        AND greatest(pg_snapshot_xmax(k.done), pg_snapshot_xmax(coalesce(k.page_snapshot, k.done))) <= (SELECT pg_snapshot_xmax(pg_current_snapshot())) AS proven
    FROM outbox_checkpoints k WHERE k.shard = s.shard ORDER BY k.epoch DESC, k.n DESC LIMIT 1) c ON true;

-- Events that the broker's log has and this outbox does not: their commits were lost by a failover or a
-- recovery after they were published. A relay finds them when the timeline has changed. A person settles them.
CREATE TABLE outbox_lost (
    event_id      text COLLATE "C" PRIMARY KEY,
    key           text COLLATE "C" NOT NULL,
    sequence      bigint NOT NULL CHECK (sequence >= 1),
    type          text COLLATE "C" NOT NULL,
    log_partition int NOT NULL,
    log_offset    bigint NOT NULL,
    timeline      int NOT NULL,
    found_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at    timestamptz
);
CREATE INDEX outbox_lost_open ON outbox_lost (found_at) WHERE settled_at IS NULL;

-- +goose Down
SET LOCAL lock_timeout = '10s';
DROP TABLE outbox_lost;
DROP VIEW outbox_cursors;
ALTER TABLE outbox_checkpoints DROP COLUMN timeline, DROP COLUMN system_identifier;
DROP FUNCTION server_identity();
CREATE VIEW outbox_cursors AS
SELECT s.shard, s.owner, s.epoch, c.n, c.done, c.page_snapshot, c.page_position, c.page_end
FROM outbox_shards s LEFT JOIN LATERAL (
    SELECT * FROM outbox_checkpoints WHERE shard = s.shard ORDER BY epoch DESC, n DESC LIMIT 1) c ON true;
