-- +goose Up

-- Which account at the provider a payment was made with: its name and the account's id, such
-- as stripe:acct_1 or simulator:led_1. NULL until the provider was first called for the
-- payment, and of payments from before this column until the service has filled it in
-- (internal/order, account.go).
SET LOCAL lock_timeout = '5s';
ALTER TABLE payments ADD COLUMN provider_account text COLLATE "C";

-- waits_for is what keeps the saga from calling the provider: the account that this service
-- has no credentials for. pending: the provider has the operation and has not decided it.
ALTER TABLE sagas ADD COLUMN waits_for text, ADD COLUMN pending boolean NOT NULL DEFAULT false;

-- The accounts that the service has started with. The first one inherits the payments that
-- were made before accounts were recorded; inherited_up_to is the key of the last of them
-- that was filled in, and inherited is when all were.
CREATE TABLE provider_accounts (
    account         text COLLATE "C" PRIMARY KEY CHECK (is_line(account, 255)),
    first_used_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_used_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    inherits        boolean NOT NULL DEFAULT false,
    inherited_up_to text[] NOT NULL DEFAULT '{"",""}' CHECK (cardinality(inherited_up_to) = 2),
    inherited_at    timestamptz
);
CREATE UNIQUE INDEX provider_accounts_one_heir ON provider_accounts (inherits) WHERE inherits;

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP TABLE provider_accounts;
ALTER TABLE sagas DROP COLUMN waits_for, DROP COLUMN pending;
ALTER TABLE payments DROP COLUMN provider_account;
