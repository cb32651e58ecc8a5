-- +goose Up

-- Outgoing webhooks (internal/webhook). They live beside the write model, though
-- their input is the event log: an endpoint is made under an idempotency key, and
-- neither endpoints nor deliveries can be made again from events, as the read
-- model can.

CREATE TABLE webhook_endpoints (
    merchant_id     text COLLATE "C" NOT NULL REFERENCES merchants (id),
    id              text COLLATE "C" NOT NULL CHECK (is_id('whe', id)),
    url             text NOT NULL CONSTRAINT webhook_endpoints_url CHECK (octet_length(url) <= 2048 AND url ~ '^https?://[^/?#@[:space:]]+([/?][^#[:space:]]*)?$'),
    events          text[] NOT NULL CONSTRAINT webhook_endpoints_events CHECK (cardinality(events) BETWEEN 1 AND 32
        AND array_position(events, NULL) IS NULL AND (events = '{*}' OR events <@ '{order.placed,stock.reserved,stock.rejected,
            payment.authorized,payment.declined,payment.captured,payment.voided,stock.released,order.confirmed,order.failed,
            order.canceled,refund.requested,refund.succeeded,refund.failed,payment.review_required}'::text[])),
    -- Deliveries in a row whose attempts all failed.
    exhausted       int NOT NULL DEFAULT 0 CHECK (exhausted >= 0),
    -- Since when no attempt has succeeded; NULL while the last one did.
    failing_since   timestamptz,
    disabled_at     timestamptz,
    disabled_reason text CHECK (disabled_reason IN ('gone', 'failing')),
    -- A deleted endpoint stays until its deliveries are forgotten.
    deleted_at      timestamptz,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (merchant_id, id),
    CONSTRAINT webhook_endpoints_disabled CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
);
-- An operator lists all merchants' endpoints in the order of their ids.
CREATE INDEX webhook_endpoints_id ON webhook_endpoints (id);

-- One current secret of an endpoint, and those that still sign beside it after a
-- rotation. The ciphertext is bound to endpoint and number (webhook.secretData).
CREATE TABLE webhook_secrets (
    merchant_id text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    number      int NOT NULL CHECK (number >= 1),
    ciphertext  bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- NULL: the current one.
    expires_at  timestamptz,
    PRIMARY KEY (merchant_id, endpoint_id, number),
    FOREIGN KEY (merchant_id, endpoint_id) REFERENCES webhook_endpoints (merchant_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX webhook_secrets_one_current ON webhook_secrets (merchant_id, endpoint_id) WHERE expires_at IS NULL;

CREATE TABLE webhook_deliveries (
    merchant_id text COLLATE "C" NOT NULL,
    -- The webhook-id, the same on every attempt.
    id          text COLLATE "C" NOT NULL CHECK (is_id('whd', id)),
    endpoint_id text COLLATE "C" NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    event_type  text NOT NULL,
    payment_id  text COLLATE "C" NOT NULL,
    -- The bytes that are signed and sent, on every attempt the same.
    body        bytea NOT NULL CHECK (octet_length(body) BETWEEN 2 AND 262144),
    state       text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'succeeded', 'failed')),
    -- Attempts made in all, and since the schedule began, which a redelivery by hand begins anew.
    attempts    int NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    tries       int NOT NULL DEFAULT 0 CHECK (tries BETWEEN 0 AND attempts),
    -- Fencing: a claim adds one, the record of the attempt names it.
    epoch       bigint NOT NULL DEFAULT 0,
    owner       text,
    -- When it may be claimed: its next attempt while it waits, its lease's end while
    -- a dispatcher holds it, NULL when it is settled.
    due_at      timestamptz DEFAULT now(),
    created_at  timestamptz NOT NULL DEFAULT now(),
    settled_at  timestamptz,
    PRIMARY KEY (merchant_id, id),
    UNIQUE (merchant_id, endpoint_id, event_id),
    FOREIGN KEY (merchant_id, endpoint_id) REFERENCES webhook_endpoints (merchant_id, id),
    CONSTRAINT webhook_deliveries_not_stranded CHECK ((state = 'pending') = (due_at IS NOT NULL) AND (state = 'pending') = (settled_at IS NULL)
        AND (state = 'pending' OR owner IS NULL))
) WITH (fillfactor = 80);
-- A claim walks from endpoint to endpoint, and takes each one's first.
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (merchant_id, endpoint_id, due_at) WHERE due_at IS NOT NULL;
-- What is in flight to an endpoint.
CREATE INDEX webhook_deliveries_held ON webhook_deliveries (merchant_id, endpoint_id) WHERE owner IS NOT NULL;
CREATE INDEX webhook_deliveries_log ON webhook_deliveries (merchant_id, endpoint_id, id);
CREATE INDEX webhook_deliveries_age ON webhook_deliveries (created_at);

-- What each attempt came to. Nothing of the answer but its status is kept.
CREATE TABLE webhook_attempts (
    merchant_id text COLLATE "C" NOT NULL,
    delivery_id text COLLATE "C" NOT NULL,
    number      int NOT NULL CHECK (number >= 1),
    started_at  timestamptz NOT NULL,
    duration_ms int NOT NULL CHECK (duration_ms >= 0),
    -- NULL when there was no answer.
    status      int CHECK (status BETWEEN 100 AND 999),
    outcome     text NOT NULL CHECK (outcome IN ('succeeded', 'refused', 'gone', 'timeout', 'unreachable', 'blocked')),
    -- A sentence of ours, of a fixed set.
    detail      text NOT NULL CHECK (char_length(detail) BETWEEN 1 AND 200),
    PRIMARY KEY (merchant_id, delivery_id, number),
    FOREIGN KEY (merchant_id, delivery_id) REFERENCES webhook_deliveries (merchant_id, id) ON DELETE CASCADE
);

-- +goose Down
DROP TABLE webhook_attempts, webhook_deliveries, webhook_secrets, webhook_endpoints;
