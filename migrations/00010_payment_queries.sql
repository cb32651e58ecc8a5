-- +goose Up

-- What lists are asked by, beside what 00002 has. Everything here is filled by the
-- projector from now on; `payments replay payment_view -accept-differences` fills
-- what was there before.

-- failure->>'code' as a column of its own: the operator is not leakproof, so that
-- behind row-level security no index over the expression could be used.
ALTER TABLE payment_view ADD COLUMN failure_code text COLLATE "C";

-- An operator names a payment without its merchant. An index in the order of ids would
-- be taken for a merchant's list as well, since rows lie in that order, and would walk
-- past everybody else's payments to the few of a merchant that has stopped trading.
CREATE INDEX payment_view_id ON payment_view USING hash (payment_id);
DROP INDEX payment_view_all;
CREATE INDEX payment_view_amount ON payment_view (merchant_id, amount, payment_id);
CREATE INDEX payment_view_method ON payment_view (merchant_id, payment_method, payment_id);
-- Failures are few: an index of them alone.
CREATE INDEX payment_view_failure ON payment_view (merchant_id, failure_code, payment_id) WHERE failure_code IS NOT NULL;

-- The words that a payment is found by: the beginning of each word of its order's
-- and its customer's reference, with all that follows it (internal/readmodel/term).
-- A beginning of a term is a range of the index, which btree finds in order, with
-- operators that are leakproof: neither holds of LIKE, trigrams and tsvector. Rows
-- are written once, with the payment's first event, and never again, while each
-- index of payment_view is written at every change of a status.
CREATE TABLE payment_term (
    merchant_id text COLLATE "C" NOT NULL,
    term        text COLLATE "C" NOT NULL,
    payment_id  text COLLATE "C" NOT NULL
);
-- The whole word before its longer ones, the newest payment first.
CREATE UNIQUE INDEX payment_term_found ON payment_term (merchant_id, term, payment_id DESC);
SELECT isolate_tenants('payment_term');

-- +goose Down
DROP TABLE payment_term;
CREATE INDEX payment_view_all ON payment_view (payment_id);
DROP INDEX payment_view_amount, payment_view_method, payment_view_id;
ALTER TABLE payment_view DROP COLUMN failure_code;
