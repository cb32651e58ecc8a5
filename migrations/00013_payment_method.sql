-- +goose Up

-- A payment method is a token that can be charged again: it is kept encrypted, and
-- payment_method is its fingerprint (internal/secret.Tokens), by which it is found and
-- counted. Where the ciphertext is NULL, a row is from before, and payment_method is
-- the token itself: only the service has the keys, so `payments secrets reencrypt`
-- does what cannot be done here.
ALTER TABLE payments ADD COLUMN payment_method_ciphertext bytea,
    ADD CONSTRAINT payments_payment_method_fingerprint CHECK (payment_method_ciphertext IS NULL OR payment_method LIKE 'pm\_fp\_%');
ALTER TABLE payment_view ADD COLUMN payment_method_ciphertext bytea;

-- With one payment of each group, whose ciphertext says what the fingerprint is of.
DROP VIEW report_approval_rate;
DROP MATERIALIZED VIEW reports.approval_rate;
CREATE MATERIALIZED VIEW reports.approval_rate AS
SELECT coalesce(merchant_id, '*') AS merchant_id, (created_at AT TIME ZONE 'UTC')::date AS day, currency, payment_method,
    max(id) AS example, count(*) AS payments,
    count(*) FILTER (WHERE authorization_reference IS NOT NULL) AS approved,
    count(*) FILTER (WHERE authorization_reference IS NULL AND failure_step = 'authorize_payment'
        AND failure_code <> 'deadline_exceeded') AS declined
FROM payments
GROUP BY 2, 3, 4, GROUPING SETS ((payments.merchant_id), ())
WITH NO DATA;
CREATE UNIQUE INDEX approval_rate_key ON reports.approval_rate (merchant_id, day, currency, payment_method);
CREATE INDEX approval_rate_day ON reports.approval_rate (day, currency);
CREATE VIEW report_approval_rate WITH (security_barrier) AS
SELECT * FROM reports.approval_rate WHERE current_setting('payments.merchant', true) IN ('*', merchant_id);

-- +goose Down
DROP VIEW report_approval_rate;
DROP MATERIALIZED VIEW reports.approval_rate;
CREATE MATERIALIZED VIEW reports.approval_rate AS
SELECT coalesce(merchant_id, '*') AS merchant_id, (created_at AT TIME ZONE 'UTC')::date AS day, currency, payment_method, count(*) AS payments,
    count(*) FILTER (WHERE authorization_reference IS NOT NULL) AS approved,
    count(*) FILTER (WHERE authorization_reference IS NULL AND failure_step = 'authorize_payment'
        AND failure_code <> 'deadline_exceeded') AS declined
FROM payments
GROUP BY 2, 3, 4, GROUPING SETS ((payments.merchant_id), ())
WITH NO DATA;
CREATE UNIQUE INDEX approval_rate_key ON reports.approval_rate (merchant_id, day, currency, payment_method);
CREATE INDEX approval_rate_day ON reports.approval_rate (day, currency);
CREATE VIEW report_approval_rate WITH (security_barrier) AS
SELECT * FROM reports.approval_rate WHERE current_setting('payments.merchant', true) IN ('*', merchant_id);
ALTER TABLE payment_view DROP COLUMN payment_method_ciphertext;
ALTER TABLE payments DROP CONSTRAINT payments_payment_method_fingerprint, DROP COLUMN payment_method_ciphertext;
