-- +goose NO TRANSACTION
-- +goose Up

-- The provider's name of an authorization or a capture belongs to one payment of an account.
-- Rows from before accounts were recorded have no account yet, and NULL equals nothing: the
-- indexes can be built whatever these rows hold. Where two of them share a reference, the
-- service leaves both without an account and says so, and `payments audit` reports them.
-- Without a transaction, so that writers go on meanwhile; an interrupted build is begun again.
DROP INDEX CONCURRENTLY IF EXISTS payments_authorization_once;
CREATE UNIQUE INDEX CONCURRENTLY payments_authorization_once ON payments (authorization_reference, provider_account)
    WHERE authorization_reference IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS payments_capture_once;
CREATE UNIQUE INDEX CONCURRENTLY payments_capture_once ON payments (capture_reference, provider_account)
    WHERE capture_reference IS NOT NULL;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS payments_capture_once;
DROP INDEX CONCURRENTLY IF EXISTS payments_authorization_once;
