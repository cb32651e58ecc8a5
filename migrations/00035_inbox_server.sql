-- +goose Up

-- The server on which the consumer last claimed the partition. A position is an offset and the id of
-- the message before it, so that another server makes it no less true: it is compared with the broker's log at each
-- claim. That the server is another one is told.
SET LOCAL lock_timeout = '10s';
ALTER TABLE inbox_offsets ADD COLUMN system_identifier bigint, ADD COLUMN timeline int;

-- +goose Down
SET LOCAL lock_timeout = '10s';
ALTER TABLE inbox_offsets DROP COLUMN timeline, DROP COLUMN system_identifier;
