-- +goose Up

-- A payment that was under review and has not failed kept the review's reason as its
-- failure. Only a payment whose capture was not asked for in time is canceled with one.
SET LOCAL lock_timeout = '10s';
UPDATE payments SET failure_code = NULL, failure_step = NULL, failure_message = NULL
WHERE failure_code IS NOT NULL AND (status IN ('succeeded', 'requires_capture')
    OR status = 'canceled' AND NOT (failure_code = 'authorization_expired' AND failure_step = 'await_capture'));
UPDATE payment_view SET failure = NULL, failure_code = NULL
WHERE failure_code IS NOT NULL AND (status IN ('succeeded', 'requires_capture')
    OR status = 'canceled' AND NOT (failure_code = 'authorization_expired' AND failure->>'step' = 'await_capture'));

-- What the bank said to the authorization. An order that ran out of stock or time was not
-- asked about, or not answered, and is neither. Nor is one that is under review: its
-- failure is why nobody knows the answer.
DROP VIEW report_approval_rate;
DROP MATERIALIZED VIEW reports.approval_rate;
CREATE MATERIALIZED VIEW reports.approval_rate AS
SELECT coalesce(merchant_id, '*') AS merchant_id, (created_at AT TIME ZONE 'UTC')::date AS day, currency, payment_method,
    max(id) AS example, count(*) AS payments,
    count(*) FILTER (WHERE authorization_reference IS NOT NULL) AS approved,
    count(*) FILTER (WHERE authorization_reference IS NULL AND failure_step = 'authorize_payment'
        AND failure_code <> 'deadline_exceeded' AND status <> 'requires_review') AS declined
FROM payments
GROUP BY 2, 3, 4, GROUPING SETS ((payments.merchant_id), ())
WITH NO DATA;
CREATE UNIQUE INDEX approval_rate_key ON reports.approval_rate (merchant_id, day, currency, payment_method);
CREATE INDEX approval_rate_day ON reports.approval_rate (day, currency);
CREATE VIEW report_approval_rate WITH (security_barrier) AS
SELECT * FROM reports.approval_rate WHERE current_setting('payments.merchant', true) IN ('*', merchant_id);

-- +goose Down
SET LOCAL lock_timeout = '10s';
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
