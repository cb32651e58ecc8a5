-- +goose Up

-- Events that an endpoint asked for while it was disabled. They become deliveries when the
-- merchant asks for them (internal/webhook).
SET LOCAL lock_timeout = '10s';
CREATE TABLE webhook_missed (
    merchant_id text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    event_type  text NOT NULL,
    payment_id  text COLLATE "C" NOT NULL,
    -- As in webhook_deliveries.
    body        bytea NOT NULL CHECK (octet_length(body) BETWEEN 2 AND 262144),
    missed_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, endpoint_id, event_id),
    FOREIGN KEY (merchant_id, endpoint_id) REFERENCES webhook_endpoints (merchant_id, id) ON DELETE CASCADE
);
-- A redelivery takes an endpoint's range in order.
CREATE INDEX webhook_missed_range ON webhook_missed (merchant_id, endpoint_id, missed_at);
CREATE INDEX webhook_missed_age ON webhook_missed (missed_at);
SELECT isolate_tenants('webhook_missed');

-- The newest refresh of the reports is the one with the highest id: after the database's
-- clock was set back, started_at does not say which is newest.
DROP INDEX report_refreshes_succeeded;

-- +goose Down
CREATE INDEX report_refreshes_succeeded ON report_refreshes (started_at) WHERE failure IS NULL;
DROP TABLE webhook_missed;
