-- +goose Up

-- Written by consumers of the event log only; nothing here refers to a table of
-- the write model, so that it can live in a database of its own.

CREATE TABLE inbox_messages (
    consumer    text COLLATE "C" NOT NULL,
    message_id  text COLLATE "C" NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, message_id)
);

-- Messages that cannot be applied, and those of the same key behind them.
CREATE TABLE inbox_parked (
    consumer   text COLLATE "C" NOT NULL,
    topic      text COLLATE "C" NOT NULL,
    partition  int NOT NULL,
    "offset"   bigint NOT NULL,
    key        bytea NOT NULL,
    headers    jsonb NOT NULL,
    value      bytea NOT NULL,
    reason     text NOT NULL,
    parked_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, topic, partition, "offset")
);
-- By digest: a foreign key can be longer than an index entry may be.
CREATE INDEX inbox_parked_key ON inbox_parked (consumer, sha256(key));

CREATE TABLE payment_view (
    merchant_id               text COLLATE "C" NOT NULL,
    payment_id                text COLLATE "C" NOT NULL,
    order_id                  text COLLATE "C" NOT NULL,
    -- The sequence of the last event applied.
    sequence                  bigint NOT NULL CHECK (sequence >= 1),
    status                    text NOT NULL,
    currency                  text NOT NULL,
    amount                    bigint NOT NULL,
    amount_captured           bigint NOT NULL DEFAULT 0,
    amount_refunded           bigint NOT NULL DEFAULT 0,
    payment_method            text NOT NULL,
    capture_method            text NOT NULL DEFAULT 'automatic',
    customer_reference        text NOT NULL,
    customer_email_ciphertext bytea,
    order_reference           text NOT NULL,
    lines                     jsonb NOT NULL,
    failure                   jsonb,
    created_at                timestamptz NOT NULL,
    updated_at                timestamptz NOT NULL,
    PRIMARY KEY (merchant_id, payment_id),
    UNIQUE (order_id)
);
-- A list is newest first: payment ids sort by time.
CREATE INDEX payment_view_all ON payment_view (payment_id);
CREATE INDEX payment_view_status ON payment_view (merchant_id, status, payment_id);
CREATE INDEX payment_view_customer ON payment_view (merchant_id, customer_reference, payment_id);
CREATE INDEX payment_view_order ON payment_view (merchant_id, order_reference, payment_id);
CREATE INDEX payment_view_currency ON payment_view (merchant_id, currency, payment_id);

CREATE TABLE refund_view (
    merchant_id  text COLLATE "C" NOT NULL,
    payment_id   text COLLATE "C" NOT NULL,
    refund_id    text COLLATE "C" NOT NULL,
    amount       bigint NOT NULL,
    reason       text,
    status       text NOT NULL,
    failure_code text,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    PRIMARY KEY (merchant_id, payment_id, refund_id)
);

CREATE TABLE payment_timeline (
    merchant_id text COLLATE "C" NOT NULL,
    payment_id  text COLLATE "C" NOT NULL,
    sequence    bigint NOT NULL CHECK (sequence >= 1),
    event_id    text COLLATE "C" NOT NULL,
    type        text NOT NULL,
    data        jsonb NOT NULL,
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (merchant_id, payment_id, sequence)
);

-- +goose Down
DROP TABLE payment_timeline, refund_view, payment_view, inbox_parked, inbox_messages;
