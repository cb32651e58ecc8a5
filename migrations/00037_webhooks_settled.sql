-- +goose NO TRANSACTION
-- +goose Up

-- A delivery is forgotten by when it was settled: one that waits for its endpoint is kept.
-- Every step can be repeated: a build that was interrupted leaves an invalid index.
DROP INDEX CONCURRENTLY IF EXISTS webhook_deliveries_settled;
CREATE INDEX CONCURRENTLY webhook_deliveries_settled ON webhook_deliveries (settled_at) WHERE settled_at IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS webhook_deliveries_age;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS webhook_deliveries_age;
CREATE INDEX CONCURRENTLY webhook_deliveries_age ON webhook_deliveries (created_at);
DROP INDEX CONCURRENTLY IF EXISTS webhook_deliveries_settled;
