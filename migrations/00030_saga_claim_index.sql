-- +goose NO TRANSACTION
-- +goose Up

-- Every step can be repeated: a build that was interrupted leaves an invalid index.
UPDATE sagas SET due_at = due_at WHERE state IN ('running', 'compensating') AND claim_at IS NULL AND paused_at IS NULL; -- the trigger fills claim_at
DROP INDEX CONCURRENTLY IF EXISTS sagas_claim;
CREATE INDEX CONCURRENTLY sagas_claim ON sagas (begun, claim_at, id) WHERE claim_at IS NOT NULL;
-- Its key has what every save changes. A program of the version before still claims
-- correctly without it, but reads the table for each claim.
DROP INDEX CONCURRENTLY IF EXISTS sagas_due;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS sagas_due;
CREATE INDEX CONCURRENTLY sagas_due ON sagas ((attempts > 0), due_at) WHERE due_at IS NOT NULL AND paused_at IS NULL;
DROP INDEX CONCURRENTLY IF EXISTS sagas_claim;
