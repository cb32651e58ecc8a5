-- +goose NO TRANSACTION
-- +goose Up
-- Without a transaction, so that writers go on while the indexes are built. What an
-- interrupted build left is built again.
DROP INDEX CONCURRENTLY IF EXISTS refunds_provider_reference;
CREATE UNIQUE INDEX CONCURRENTLY refunds_provider_reference ON refunds (merchant_id, payment_id, provider_reference)
    WHERE provider_reference IS NOT NULL;

-- A notification about a dispute, or about a refund made elsewhere, names the payment by
-- the provider's ids alone.
DROP INDEX CONCURRENTLY IF EXISTS payments_authorization_reference;
CREATE INDEX CONCURRENTLY payments_authorization_reference ON payments (authorization_reference)
    WHERE authorization_reference IS NOT NULL;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS payments_authorization_reference;
DROP INDEX CONCURRENTLY IF EXISTS refunds_provider_reference;
