-- The tables that one would write first: the same facts as the service's own schema keeps, one row at a
-- time, with an outbox that has a flag.

CREATE TABLE merchants (id text PRIMARY KEY, api_key_sha256 bytea NOT NULL UNIQUE);

CREATE TABLE idempotency_keys (
    merchant_id text NOT NULL REFERENCES merchants,
    key         text NOT NULL,
    fingerprint bytea NOT NULL,
    body        bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, key)
);

CREATE TABLE orders (
    id          text PRIMARY KEY,
    merchant_id text NOT NULL REFERENCES merchants,
    reference   text NOT NULL,
    customer    text NOT NULL,
    email       text NOT NULL,
    currency    text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    amount      bigint NOT NULL CHECK (amount > 0),
    status      text NOT NULL CHECK (status IN ('placed', 'confirmed', 'canceled')),
    sequence    bigint NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (merchant_id, reference)
);

CREATE TABLE order_lines (
    order_id    text NOT NULL REFERENCES orders,
    line        int NOT NULL,
    sku         text NOT NULL,
    quantity    bigint NOT NULL CHECK (quantity > 0),
    unit_amount bigint NOT NULL CHECK (unit_amount > 0),
    PRIMARY KEY (order_id, line)
);

CREATE TABLE payments (
    id              text PRIMARY KEY,
    merchant_id     text NOT NULL REFERENCES merchants,
    order_id        text NOT NULL UNIQUE REFERENCES orders,
    status          text NOT NULL CHECK (status IN ('processing', 'succeeded', 'failed')),
    currency        text NOT NULL,
    amount          bigint NOT NULL CHECK (amount > 0),
    amount_captured bigint NOT NULL DEFAULT 0,
    payment_method  text NOT NULL,
    authorization_reference text,
    capture_reference       text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE stock (
    merchant_id text NOT NULL REFERENCES merchants,
    sku         text NOT NULL,
    on_hand     bigint NOT NULL CHECK (on_hand >= 0),
    reserved    bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    sold        bigint NOT NULL DEFAULT 0 CHECK (sold >= 0),
    PRIMARY KEY (merchant_id, sku)
);

CREATE TABLE sagas (
    id         text PRIMARY KEY,
    payment_id text NOT NULL REFERENCES payments,
    state      text NOT NULL CHECK (state IN ('running', 'completed', 'failed')),
    step       int NOT NULL DEFAULT 0,
    due_at     timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sagas_due ON sagas (due_at) WHERE state = 'running';

CREATE TABLE saga_attempts (
    saga_id     text NOT NULL REFERENCES sagas,
    step        int NOT NULL,
    outcome     text NOT NULL,
    reference   text,
    finished_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (saga_id, step)
);

CREATE TABLE outbox (
    position  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id        text NOT NULL UNIQUE,
    key       text NOT NULL,
    sequence  bigint NOT NULL,
    type      text NOT NULL,
    payload   jsonb NOT NULL,
    published boolean NOT NULL DEFAULT false
);
CREATE INDEX outbox_unpublished ON outbox (position) WHERE NOT published;

CREATE TABLE inbox (
    consumer    text NOT NULL,
    message_id  text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, message_id)
);

CREATE TABLE payment_view (
    payment_id  text PRIMARY KEY,
    merchant_id text NOT NULL,
    sequence    bigint NOT NULL,
    status      text NOT NULL,
    currency    text NOT NULL,
    amount      bigint NOT NULL,
    customer    text NOT NULL,
    reference   text NOT NULL,
    lines       jsonb NOT NULL,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);
CREATE INDEX payment_view_merchant ON payment_view (merchant_id, created_at);
CREATE INDEX payment_view_reference ON payment_view (merchant_id, reference);

CREATE TABLE payment_timeline (
    payment_id text NOT NULL,
    sequence   bigint NOT NULL,
    type       text NOT NULL,
    data       jsonb NOT NULL,
    PRIMARY KEY (payment_id, sequence)
);
