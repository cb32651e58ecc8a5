-- +goose NO TRANSACTION
-- +goose Up
-- Without a transaction, so that writers go on while the index is built. What an
-- interrupted build left is built again.
DROP INDEX CONCURRENTLY IF EXISTS refunds_provider_reference;
CREATE UNIQUE INDEX CONCURRENTLY refunds_provider_reference ON refunds (merchant_id, payment_id, provider_reference)
    WHERE provider_reference IS NOT NULL;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS refunds_provider_reference;
