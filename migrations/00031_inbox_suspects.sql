-- +goose Up
-- Messages that were in hand in attempts that have not ended well are tried again in
-- halves. The columns tried_from, tried_until and attempts are the first group of them;
-- these are the groups after it, each by its first offset, the one behind its last, and
-- how often all of it was in hand.
ALTER TABLE inbox_offsets ADD COLUMN tried_rest bigint[] NOT NULL DEFAULT '{}';

-- +goose Down
ALTER TABLE inbox_offsets DROP COLUMN tried_rest;
