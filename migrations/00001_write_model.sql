-- +goose Up

-- Identifiers are TypeIDs as text in the "C" collation: what a log, an event or
-- a client shows is what stands here. Every tenant table carries merchant_id,
-- first in its key, so that rows of one merchant stay together.

-- +goose StatementBegin
CREATE FUNCTION is_id(prefix text, id text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN id ~ ('^' || prefix || '_[0-7][0-9a-hjkmnp-tv-z]{25}$');
-- +goose StatementEnd

-- A sku, as internal/payment.validToken has it.
CREATE DOMAIN sku AS text COLLATE "C"
    CONSTRAINT sku_format CHECK (VALUE ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$');

-- One line of text of 1 to 64 characters, as internal/payment.validText has it.
CREATE DOMAIN reference AS text
    CONSTRAINT reference_length CHECK (char_length(VALUE) BETWEEN 1 AND 64)
    CONSTRAINT reference_no_control CHECK (VALUE !~ '[\u0001-\u001f\u007f-\u009f]');

-- Minor units of a currency, at most internal/payment.MaxAmount.
CREATE DOMAIN minor_units AS bigint
    CONSTRAINT minor_units_range CHECK (VALUE BETWEEN 0 AND 999999999999);

CREATE TABLE merchants (
    id         text COLLATE "C" PRIMARY KEY CHECK (is_id('mer', id)),
    name       reference NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    id           text COLLATE "C" PRIMARY KEY CHECK (is_id('key', id)),
    merchant_id  text COLLATE "C" REFERENCES merchants (id),
    role         text NOT NULL CHECK (role IN ('merchant', 'operator')),
    mac          bytea NOT NULL CHECK (octet_length(mac) BETWEEN 32 AND 64),
    created_at   timestamptz NOT NULL DEFAULT now(),
    revoked_at   timestamptz,
    CONSTRAINT api_keys_merchant CHECK ((role = 'merchant') = (merchant_id IS NOT NULL))
);

CREATE TABLE orders (
    merchant_id               text COLLATE "C" NOT NULL REFERENCES merchants (id),
    id                        text COLLATE "C" NOT NULL CHECK (is_id('ord', id)),
    reference                 reference NOT NULL,
    customer_reference        reference NOT NULL,
    customer_email_ciphertext bytea,
    currency                  text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    amount                    minor_units NOT NULL CHECK (amount >= 1),
    status                    text NOT NULL CHECK (status IN ('placed', 'confirmed', 'failed', 'canceled')),
    -- The sequence of the order's newest event; drawing the next locks this row.
    sequence                  bigint NOT NULL CHECK (sequence >= 1),
    created_at                timestamptz NOT NULL,
    updated_at                timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, id)
);

-- The semantic lock: one live or won order for each reference of a merchant.
CREATE UNIQUE INDEX orders_one_live_or_won ON orders (merchant_id, reference)
    WHERE status IN ('placed', 'confirmed');

CREATE TABLE order_lines (
    merchant_id text COLLATE "C" NOT NULL,
    order_id    text COLLATE "C" NOT NULL,
    line        smallint NOT NULL CHECK (line BETWEEN 0 AND 99),
    sku         sku NOT NULL,
    quantity    bigint NOT NULL CHECK (quantity BETWEEN 1 AND 1000000),
    unit_amount minor_units NOT NULL,
    PRIMARY KEY (merchant_id, order_id, line),
    FOREIGN KEY (merchant_id, order_id) REFERENCES orders (merchant_id, id)
);

CREATE TABLE payments (
    merchant_id      text COLLATE "C" NOT NULL,
    id               text COLLATE "C" NOT NULL CHECK (is_id('pay', id)),
    order_id         text COLLATE "C" NOT NULL,
    status           text NOT NULL CHECK (status IN
        ('processing', 'requires_capture', 'requires_review', 'succeeded', 'failed', 'canceled')),
    currency         text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    amount           minor_units NOT NULL CHECK (amount >= 1),
    amount_captured  minor_units NOT NULL DEFAULT 0,
    amount_refunded  minor_units NOT NULL DEFAULT 0,
    -- What refunds under way may still give back.
    amount_refunding minor_units NOT NULL DEFAULT 0,
    payment_method   text COLLATE "C" NOT NULL CHECK (payment_method ~ '^pm_[A-Za-z0-9][A-Za-z0-9._-]{0,60}$'),
    capture_method   text NOT NULL CHECK (capture_method IN ('automatic', 'manual')),
    -- The provider's own names of what it holds and what it has taken.
    authorization_reference text COLLATE "C",
    capture_reference       text COLLATE "C",
    failure_code     text,
    failure_step     text,
    failure_message  text,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, id),
    UNIQUE (merchant_id, order_id),
    FOREIGN KEY (merchant_id, order_id) REFERENCES orders (merchant_id, id),
    CONSTRAINT payments_captured_in_full
        CHECK (amount_captured IN (0, amount) AND (status <> 'succeeded' OR amount_captured = amount)),
    CONSTRAINT payments_refunds_bounded CHECK (amount_refunded + amount_refunding <= amount_captured),
    CONSTRAINT payments_manual CHECK (status <> 'requires_capture' OR capture_method = 'manual'),
    CONSTRAINT payments_failure CHECK ((status = 'failed') <= (failure_code IS NOT NULL)
        AND (failure_code IS NULL) = (failure_step IS NULL)
        AND (failure_code IS NULL) = (failure_message IS NULL))
);
-- A provider names a payment without its merchant.
CREATE INDEX payments_id ON payments (id);

-- The state machine of internal/payment.Status: a terminal payment never changes.
-- +goose StatementBegin
CREATE FUNCTION refuse_illegal_payment_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a payment cannot go from % to %', OLD.status, NEW.status
        USING ERRCODE = 'check_violation', CONSTRAINT = 'payments_transition';
END $$;
-- +goose StatementEnd

CREATE TRIGGER payments_transition BEFORE UPDATE OF status ON payments FOR EACH ROW
    WHEN (OLD.status <> NEW.status AND OLD.status IN ('succeeded', 'failed', 'canceled'))
    EXECUTE FUNCTION refuse_illegal_payment_transition();

CREATE TABLE refunds (
    merchant_id  text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL CHECK (is_id('ref', id)),
    payment_id   text COLLATE "C" NOT NULL,
    amount       minor_units NOT NULL CHECK (amount >= 1),
    reason       reference,
    status       text NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed')),
    failure_code text,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, id),
    FOREIGN KEY (merchant_id, payment_id) REFERENCES payments (merchant_id, id),
    CONSTRAINT refunds_failure CHECK ((status = 'failed') = (failure_code IS NOT NULL))
);
CREATE INDEX refunds_payment ON refunds (merchant_id, payment_id, id);

-- +goose StatementBegin
CREATE FUNCTION refuse_refund_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a refund cannot go from % to %', OLD.status, NEW.status
        USING ERRCODE = 'check_violation', CONSTRAINT = 'refunds_transition';
END $$;
-- +goose StatementEnd

CREATE TRIGGER refunds_transition BEFORE UPDATE OF status ON refunds FOR EACH ROW
    WHEN (OLD.status <> NEW.status AND OLD.status <> 'pending') EXECUTE FUNCTION refuse_refund_transition();

CREATE TABLE stock (
    merchant_id text COLLATE "C" NOT NULL REFERENCES merchants (id),
    sku         sku NOT NULL,
    received    bigint NOT NULL,
    on_hand     bigint NOT NULL CHECK (on_hand BETWEEN 0 AND 1000000000),
    reserved    bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    sold        bigint NOT NULL DEFAULT 0 CHECK (sold >= 0),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, sku),
    CONSTRAINT stock_conserved CHECK (received = on_hand + reserved + sold)
) WITH (fillfactor = 50); -- a hot row: leave room for HOT updates

CREATE TABLE stock_reservations (
    merchant_id text COLLATE "C" NOT NULL,
    order_id    text COLLATE "C" NOT NULL,
    sku         sku NOT NULL,
    quantity    bigint NOT NULL CHECK (quantity >= 1),
    state       text NOT NULL CHECK (state IN ('reserved', 'released', 'sold')),
    PRIMARY KEY (merchant_id, order_id, sku),
    FOREIGN KEY (merchant_id, order_id) REFERENCES orders (merchant_id, id),
    FOREIGN KEY (merchant_id, sku) REFERENCES stock (merchant_id, sku)
);

-- The answer to the first request under a key, in the transaction of what it did.
CREATE TABLE idempotency_keys (
    merchant_id text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 255),
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    resource_id text COLLATE "C" NOT NULL,
    status      smallint NOT NULL CHECK (status BETWEEN 200 AND 299),
    header      jsonb NOT NULL,
    body        bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- What each version of a definition looks like, and when a worker last held it.
CREATE TABLE saga_definitions (
    name    text NOT NULL,
    version int NOT NULL CHECK (version >= 1),
    hash    bytea NOT NULL CHECK (octet_length(hash) = 32),
    held_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, version)
);

CREATE TABLE sagas (
    merchant_id     text COLLATE "C" NOT NULL,
    id              text COLLATE "C" NOT NULL,
    definition      text NOT NULL,
    version         int NOT NULL CHECK (version >= 1),
    subject         text COLLATE "C" NOT NULL,
    state           text NOT NULL CHECK (state IN ('running', 'compensating', 'completed', 'compensated', 'parked')),
    step            text NOT NULL,
    -- Calls made since the step's last progress; the backoff grows with it.
    tries           int NOT NULL DEFAULT 0 CHECK (tries >= 0),
    step_since      timestamptz NOT NULL DEFAULT now(),
    -- The number of the newest attempt in saga_attempts.
    attempts        int NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    -- An intent is written before a call leaves: the call may have been made.
    intent          boolean NOT NULL DEFAULT false,
    -- A request of this step may ever have been sent.
    attempted       boolean NOT NULL DEFAULT false,
    resolving       boolean NOT NULL DEFAULT false,
    in_flight_until timestamptz,
    -- Why it turned back; why it waits for a person, and from which state.
    rejection       jsonb,
    parked          jsonb,
    parked_from     text CHECK (parked_from IN ('running', 'compensating')),
    -- Durable requests to a saga that a worker may hold: turn back; go on past
    -- an awaiting step; take this verdict of two operators as the step's outcome.
    abort           jsonb,
    signaled        boolean NOT NULL DEFAULT false,
    verdict         jsonb,
    abortable       boolean NOT NULL,
    awaiting        boolean NOT NULL DEFAULT false,
    -- When it turns back by itself if it has not come to its pivot.
    deadline        timestamptz,
    paused_at       timestamptz,
    data            jsonb NOT NULL,
    traceparent     text,
    -- Fencing: a claim adds one, every write by a worker names it.
    epoch           bigint NOT NULL DEFAULT 0,
    owner           text,
    -- When the saga may be claimed: its timer while it waits, its lease's end
    -- while a worker holds it, NULL when it is terminal or parked.
    due_at          timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, id),
    UNIQUE (merchant_id, definition, subject),
    CONSTRAINT sagas_not_stranded
        CHECK ((due_at IS NULL) = (state IN ('completed', 'compensated', 'parked'))),
    CONSTRAINT sagas_parked CHECK ((state = 'parked') = (parked IS NOT NULL) AND (parked IS NULL) = (parked_from IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX sagas_due ON sagas (due_at) WHERE due_at IS NOT NULL AND paused_at IS NULL;
CREATE INDEX sagas_not_ended ON sagas (id) WHERE state IN ('running', 'compensating', 'parked');
CREATE INDEX sagas_id ON sagas (id);

CREATE TABLE saga_attempts (
    merchant_id     text COLLATE "C" NOT NULL,
    saga_id         text COLLATE "C" NOT NULL,
    number          int NOT NULL CHECK (number >= 1),
    step            text NOT NULL,
    call            text NOT NULL CHECK (call IN ('local', 'execute', 'lookup', 'await', 'operator')),
    epoch           bigint NOT NULL,
    owner           text NOT NULL,
    idempotency_key text COLLATE "C",
    request_digest  bytea,
    started_at      timestamptz NOT NULL,
    finished_at     timestamptz,
    outcome         text CHECK (outcome IN ('succeeded', 'rejected', 'not_found', 'unknown', 'not_sent')),
    code            text,
    detail          text,
    reference       text,
    PRIMARY KEY (merchant_id, saga_id, number),
    FOREIGN KEY (merchant_id, saga_id) REFERENCES sagas (merchant_id, id),
    CONSTRAINT saga_attempts_finished CHECK ((outcome IS NULL) = (finished_at IS NULL))
);

-- What operators did, and what one proposed and another has to approve. Append-only.
CREATE TABLE saga_actions (
    merchant_id text COLLATE "C" NOT NULL,
    saga_id     text COLLATE "C" NOT NULL,
    number      int NOT NULL CHECK (number >= 1),
    action      text NOT NULL CHECK (action IN ('retry', 'resolve', 'pause', 'resume', 'cancel', 'propose', 'approve', 'withdraw')),
    operator    text NOT NULL CHECK (char_length(operator) BETWEEN 1 AND 64),
    reason      text NOT NULL CHECK (char_length(reason) BETWEEN 1 AND 1000),
    step        text NOT NULL,
    -- Of a proposal, and repeated by its approval.
    verdict     jsonb,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (merchant_id, saga_id, number),
    FOREIGN KEY (merchant_id, saga_id) REFERENCES sagas (merchant_id, id),
    CONSTRAINT saga_actions_verdict CHECK ((action IN ('propose', 'approve')) = (verdict IS NOT NULL))
);

-- Append-only: rows are never updated. position is drawn after the aggregate's
-- row was locked, so within one key it follows commit order; across keys only a
-- snapshot tells what became visible (internal/outbox).
CREATE TABLE outbox (
    position    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    merchant_id text COLLATE "C" NOT NULL,
    id          text COLLATE "C" NOT NULL UNIQUE,
    topic       text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    sequence    bigint NOT NULL CHECK (sequence >= 1),
    headers     jsonb NOT NULL,
    payload     bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT outbox_one_event_a_sequence UNIQUE (key, sequence)
);
CREATE INDEX outbox_xid ON outbox (xid, position);

-- One row a relay: who owns it, and how far it has come. done is the snapshot
-- whose visible rows are all published; page_* say how far it is inside the
-- window between done and page_snapshot.
CREATE TABLE outbox_relays (
    name          text PRIMARY KEY,
    owner         text,
    epoch         bigint NOT NULL DEFAULT 0,
    lease_until   timestamptz NOT NULL DEFAULT '-infinity',
    done          pg_snapshot NOT NULL,
    page_snapshot pg_snapshot,
    page_position bigint NOT NULL DEFAULT 0,
    updated_at    timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
DROP TABLE outbox_relays, outbox, saga_actions, saga_attempts, sagas, saga_definitions, idempotency_keys, stock_reservations, stock,
    refunds, payments, order_lines, orders, api_keys, merchants;
DROP FUNCTION refuse_illegal_payment_transition, refuse_refund_transition;
DROP DOMAIN minor_units, reference, sku;
DROP FUNCTION is_id;
