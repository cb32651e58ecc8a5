-- +goose Up

-- Reports (internal/report, docs/patterns/materialized-views.md). The views read the
-- write model: it is the truth, one snapshot of it holds payments, lines, refunds and
-- sagas alike, and nothing ever swaps its tables, as `payments replay` does with those
-- of the read model. Times are cut into days of UTC.
--
-- The materialized views stand in a schema of their own, which the service's role
-- cannot look into: it reads them through the views of public below.
CREATE SCHEMA reports;

-- A payment counts on the day it was made, and what is given back of it later on
-- that same day, so that net is what is left of that day's payments.
-- Rows of the merchant '*' are those of all together, so that an operator's question
-- reads as few rows as a merchant's.
CREATE MATERIALIZED VIEW reports.revenue AS
SELECT coalesce(merchant_id, '*') AS merchant_id, (created_at AT TIME ZONE 'UTC')::date AS day, currency,
    count(*) AS payments, sum(amount_captured)::bigint AS gross, sum(amount_refunded)::bigint AS refunded
FROM payments WHERE amount_captured > 0
GROUP BY 2, 3, GROUPING SETS ((payments.merchant_id), ())
WITH NO DATA;
CREATE UNIQUE INDEX revenue_key ON reports.revenue (merchant_id, day, currency);
CREATE INDEX revenue_day ON reports.revenue (day, currency);

-- What the bank said to the authorization. An order that ran out of stock or time
-- was not asked about, or not answered, and is neither.
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

CREATE MATERIALIZED VIEW reports.failures AS
SELECT coalesce(merchant_id, '*') AS merchant_id, (created_at AT TIME ZONE 'UTC')::date AS day, currency, failure_code AS code, failure_step AS step, count(*) AS payments
FROM payments WHERE status = 'failed'
GROUP BY 2, 3, 4, 5, GROUPING SETS ((payments.merchant_id), ())
WITH NO DATA;
CREATE UNIQUE INDEX failures_key ON reports.failures (merchant_id, day, currency, code, step);
CREATE INDEX failures_day ON reports.failures (day, currency);

-- What was sold: lines of captured payments. A refund is of a payment, not of a line.
CREATE MATERIALIZED VIEW reports.top_products AS
SELECT l.merchant_id, (p.created_at AT TIME ZONE 'UTC')::date AS day, p.currency, l.sku::text COLLATE "C" AS sku,
    sum(l.quantity)::bigint AS quantity, sum(l.quantity * l.unit_amount)::bigint AS gross
FROM payments p JOIN order_lines l ON l.merchant_id = p.merchant_id AND l.order_id = p.order_id
WHERE p.amount_captured > 0
GROUP BY 1, 2, 3, 4
WITH NO DATA;
CREATE UNIQUE INDEX top_products_key ON reports.top_products (merchant_id, day, currency, sku);
CREATE INDEX top_products_day ON reports.top_products (day, currency);

-- By the day the refund was asked for.
CREATE MATERIALIZED VIEW reports.refunds AS
SELECT coalesce(r.merchant_id, '*') AS merchant_id, (r.created_at AT TIME ZONE 'UTC')::date AS day, p.currency, r.status, count(*) AS refunds, sum(r.amount)::bigint AS amount
FROM refunds r JOIN payments p ON p.merchant_id = r.merchant_id AND p.id = r.payment_id
GROUP BY 2, 3, 4, GROUPING SETS ((r.merchant_id), ())
WITH NO DATA;
CREATE UNIQUE INDEX refunds_key ON reports.refunds (merchant_id, day, currency, status);
CREATE INDEX refunds_day ON reports.refunds (day, currency);

-- Percentiles do not add up; counts by duration do. at_most_ms is the duration rounded
-- up to two digits, so that it is less than a tenth too long. By the day of the end.
CREATE MATERIALIZED VIEW reports.saga_durations AS
SELECT (updated_at AT TIME ZONE 'UTC')::date AS day, definition, state AS outcome,
    (ceil(ms / unit) * unit)::bigint AS at_most_ms, count(*) AS sagas
FROM sagas,
    LATERAL (SELECT greatest(ceil(extract(epoch FROM updated_at - created_at) * 1000), 1) AS ms) d,
    LATERAL (SELECT 10::numeric ^ greatest(length(ms::bigint::text) - 2, 0) AS unit) u
WHERE state IN ('completed', 'compensated')
GROUP BY 1, 2, 3, 4
WITH NO DATA;
CREATE UNIQUE INDEX saga_durations_key ON reports.saga_durations (day, definition, outcome, at_most_ms);

-- The second wall, as row-level security is for tables: a materialized view can have
-- none. security_barrier keeps a caller's own conditions behind it.
CREATE VIEW report_revenue WITH (security_barrier) AS
SELECT * FROM reports.revenue WHERE current_setting('payments.merchant', true) IN ('*', merchant_id);
CREATE VIEW report_approval_rate WITH (security_barrier) AS
SELECT * FROM reports.approval_rate WHERE current_setting('payments.merchant', true) IN ('*', merchant_id);
CREATE VIEW report_failures WITH (security_barrier) AS
SELECT * FROM reports.failures WHERE current_setting('payments.merchant', true) IN ('*', merchant_id);
CREATE VIEW report_top_products WITH (security_barrier) AS
SELECT * FROM reports.top_products WHERE current_setting('payments.merchant', true) IN ('*', merchant_id);
CREATE VIEW report_refunds WITH (security_barrier) AS
SELECT * FROM reports.refunds WHERE current_setting('payments.merchant', true) IN ('*', merchant_id);
-- Of all merchants together, and so nobody's own.
CREATE VIEW report_saga_durations WITH (security_barrier) AS
SELECT * FROM reports.saga_durations WHERE current_setting('payments.merchant', true) = '*';

-- The newest attempts. What the views show is the newest that succeeded: all that was
-- committed by its started_at, and next to nothing more.
CREATE TABLE report_refreshes (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz NOT NULL CHECK (ended_at >= started_at),
    -- How often they are refreshed.
    every      interval NOT NULL,
    -- By view, of one that succeeded.
    seconds    jsonb,
    -- Why it failed, and left the views as they were.
    failure    text CHECK (char_length(failure) BETWEEN 1 AND 1000),
    CONSTRAINT report_refreshes_outcome CHECK ((seconds IS NULL) = (failure IS NOT NULL))
);
CREATE INDEX report_refreshes_succeeded ON report_refreshes (started_at) WHERE failure IS NULL;

-- When an operator last asked for a refresh. A table of its own: a row that the
-- refresh's transaction writes, too, would make one of the two fail.
CREATE TABLE report_request (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    requested_at timestamptz NOT NULL
);
INSERT INTO report_request (requested_at) VALUES ('-infinity');

-- Refreshes every view from the one snapshot of the caller's transaction, and notes it.
-- REFRESH is the owner's alone, hence SECURITY DEFINER. CONCURRENTLY lets readers go on,
-- and takes no lock that a writer waits for; a view's first filling cannot be
-- CONCURRENTLY, and there is nothing to read by then. now() is the transaction's begin,
-- before its snapshot was taken. One process at a time must call it, and take its lock
-- before its transaction: a snapshot from before another's commit could not merge.
-- +goose StatementBegin
CREATE FUNCTION report_refresh(refreshed_every interval) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp
    SET lock_timeout = '5s'
    SET work_mem = '64MB'
    SET max_parallel_workers_per_gather = 0 -- whoever pays needs the other processors
AS $$
DECLARE
    v     record;
    since timestamptz;
    took  jsonb := '{}';
    new   bigint;
BEGIN
    IF current_setting('transaction_isolation') <> 'repeatable read' THEN
        RAISE EXCEPTION 'reports are refreshed from one snapshot: REPEATABLE READ' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    PERFORM set_config('payments.merchant', '*', true); -- should the owner not be exempt from row-level security
    FOR v IN SELECT c.relname, c.relispopulated FROM pg_class c
        WHERE c.relnamespace = 'reports'::regnamespace AND c.relkind = 'm' ORDER BY c.relname
    LOOP
        since := clock_timestamp();
        IF v.relispopulated THEN
            EXECUTE format('REFRESH MATERIALIZED VIEW CONCURRENTLY reports.%I', v.relname);
        ELSE
            EXECUTE format('REFRESH MATERIALIZED VIEW reports.%I', v.relname);
            EXECUTE format('ANALYZE reports.%I', v.relname);
        END IF;
        took := took || jsonb_build_object(v.relname, extract(epoch FROM clock_timestamp() - since));
    END LOOP;
    INSERT INTO report_refreshes (started_at, ended_at, every, seconds) VALUES (now(), clock_timestamp(), refreshed_every, took)
    RETURNING id INTO new;
    DELETE FROM report_refreshes WHERE id < new - 1000;
END $$;
-- +goose StatementEnd
REVOKE EXECUTE ON FUNCTION report_refresh FROM PUBLIC;

-- +goose Down
DROP FUNCTION report_refresh;
DROP TABLE report_request, report_refreshes;
DROP VIEW report_revenue, report_approval_rate, report_failures, report_top_products, report_refunds, report_saga_durations;
DROP SCHEMA reports CASCADE;
