-- +goose Up

-- A claim takes what has begun before what has not, each by its own due time.
DROP INDEX sagas_due;
CREATE INDEX sagas_due ON sagas ((attempts > 0), due_at) WHERE due_at IS NOT NULL AND paused_at IS NULL;

-- +goose Down
DROP INDEX sagas_due;
CREATE INDEX sagas_due ON sagas (due_at) WHERE due_at IS NOT NULL AND paused_at IS NULL;
