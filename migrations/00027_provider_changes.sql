-- +goose Up
-- What happens at the provider's side and was not asked for by this service: a refund
-- that fails after it succeeded, an act at the provider's dashboard, a dispute.
SET LOCAL lock_timeout = '5s'; -- fail and be tried again rather than make every writer wait

-- The provider's id of the refund, which a refund made at the provider's dashboard has
-- instead of a saga. Refunds from before this column are found by their sagas' keys.
ALTER TABLE refunds ADD COLUMN provider_reference text COLLATE "C";

-- A refund that succeeded may fail later: the customer's bank sends it back.
DROP TRIGGER refunds_transition ON refunds;
CREATE TRIGGER refunds_transition BEFORE UPDATE OF status ON refunds FOR EACH ROW
    WHEN (OLD.status <> NEW.status AND OLD.status <> 'pending' AND NOT (OLD.status = 'succeeded' AND NEW.status = 'failed'))
    EXECUTE FUNCTION refuse_refund_transition();

-- A dispute as the provider tells of it; a payment may have several.
CREATE TABLE disputes (
    merchant_id        text COLLATE "C" NOT NULL,
    id                 text COLLATE "C" NOT NULL CHECK (is_id('dsp', id)),
    payment_id         text COLLATE "C" NOT NULL,
    provider_reference text COLLATE "C" NOT NULL CHECK (is_line(provider_reference, 255)),
    status             text NOT NULL CHECK (status IN ('open', 'won', 'lost')),
    amount             minor_units NOT NULL,
    currency           text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'), -- may be another than the payment's
    reason             text NOT NULL CHECK (is_line(reason, 64)),
    respond_by         timestamptz,
    created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (merchant_id, id),
    UNIQUE (merchant_id, payment_id, provider_reference),
    FOREIGN KEY (merchant_id, payment_id) REFERENCES payments (merchant_id, id)
);
SELECT isolate_tenants('disputes');

-- What was found at the provider, once for each kind and object. open waits for an
-- operator; recorded needed none; accepted was taken note of by an operator; gone is
-- no longer so at the provider.
CREATE TABLE provider_changes (
    merchant_id text COLLATE "C" NOT NULL,
    id          text COLLATE "C" NOT NULL CHECK (is_id('pch', id)),
    payment_id  text COLLATE "C" NOT NULL,
    kind        text NOT NULL CHECK (is_line(kind, 64)),
    subject     text COLLATE "C" NOT NULL CHECK (is_line(subject, 255)), -- the provider's id
    amount      minor_units NOT NULL,
    detail      text NOT NULL CHECK (is_line(detail, 1000)),
    state       text NOT NULL CHECK (state IN ('open', 'recorded', 'accepted', 'gone')),
    found_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    decided_at  timestamptz,
    operator    text CHECK (is_line(operator, 64)),
    holder      text CHECK (is_line(holder, 64)),
    reason      text CHECK (is_reason(reason)),
    PRIMARY KEY (merchant_id, id),
    UNIQUE (merchant_id, payment_id, kind, subject),
    FOREIGN KEY (merchant_id, payment_id) REFERENCES payments (merchant_id, id),
    CONSTRAINT provider_changes_accepted CHECK ((state = 'accepted') = (operator IS NOT NULL)
        AND (operator IS NULL) = (reason IS NULL) AND (operator IS NULL) = (holder IS NULL)),
    CONSTRAINT provider_changes_decided CHECK ((state IN ('accepted', 'gone')) = (decided_at IS NOT NULL))
);
-- An operator lists all merchants' changes in the order of their ids.
CREATE INDEX provider_changes_id ON provider_changes (id);
CREATE INDEX provider_changes_open ON provider_changes (id) WHERE state = 'open';
SELECT isolate_tenants('provider_changes');

-- How far the scheduled comparison with the provider has come.
CREATE TABLE provider_comparisons (
    name             text PRIMARY KEY,
    range_from       timestamptz NOT NULL,
    range_to         timestamptz NOT NULL,
    cursor           text NOT NULL DEFAULT '',
    differences      bigint NOT NULL DEFAULT 0,
    finished_at      timestamptz,
    last_finished_at timestamptz,
    last_found       bigint, -- differences of the run that ended at last_finished_at
    leased_until     timestamptz NOT NULL DEFAULT '-infinity',
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

ALTER TABLE saga_actions
    DROP CONSTRAINT saga_actions_action_check,
    ADD CONSTRAINT saga_actions_action_check CHECK (action IN
        ('retry', 'resolve', 'pause', 'resume', 'cancel', 'propose', 'approve', 'withdraw', 'accept_capture')) NOT VALID;

ALTER TABLE webhook_endpoints
    DROP CONSTRAINT webhook_endpoints_events,
    ADD CONSTRAINT webhook_endpoints_events CHECK (coalesce(array_ndims(events) = 1, false) AND is_set(events)
        AND array_position(events, NULL) IS NULL AND (events = '{*}' OR events <@ '{order.placed,stock.reserved,stock.rejected,
            payment.authorized,payment.declined,payment.captured,payment.voided,stock.released,order.confirmed,order.failed,
            order.canceled,refund.requested,refund.succeeded,refund.failed,payment.review_required,
            dispute.opened,dispute.updated,dispute.closed}'::text[]));

-- The newest dispute of the payment, as its events tell of it.
ALTER TABLE payment_view ADD COLUMN dispute jsonb;

-- +goose Down
SET LOCAL lock_timeout = '5s';
ALTER TABLE payment_view DROP COLUMN dispute;
UPDATE webhook_endpoints SET events = CASE WHEN events <@ '{dispute.opened,dispute.updated,dispute.closed}' THEN '{*}'
    ELSE ARRAY(SELECT e FROM unnest(events) AS e WHERE e NOT LIKE 'dispute.%') END
WHERE events && '{dispute.opened,dispute.updated,dispute.closed}';
ALTER TABLE webhook_endpoints
    DROP CONSTRAINT webhook_endpoints_events,
    ADD CONSTRAINT webhook_endpoints_events CHECK (coalesce(array_ndims(events) = 1, false) AND is_set(events)
        AND array_position(events, NULL) IS NULL AND (events = '{*}' OR events <@ '{order.placed,stock.reserved,stock.rejected,
            payment.authorized,payment.declined,payment.captured,payment.voided,stock.released,order.confirmed,order.failed,
            order.canceled,refund.requested,refund.succeeded,refund.failed,payment.review_required}'::text[]));
DELETE FROM saga_actions WHERE action = 'accept_capture';
ALTER TABLE saga_actions
    DROP CONSTRAINT saga_actions_action_check,
    ADD CONSTRAINT saga_actions_action_check CHECK (action IN ('retry', 'resolve', 'pause', 'resume', 'cancel', 'propose', 'approve', 'withdraw')) NOT VALID;
DROP TABLE provider_comparisons, provider_changes, disputes;
DROP TRIGGER refunds_transition ON refunds;
CREATE TRIGGER refunds_transition BEFORE UPDATE OF status ON refunds FOR EACH ROW
    WHEN (OLD.status <> NEW.status AND OLD.status <> 'pending') EXECUTE FUNCTION refuse_refund_transition();
ALTER TABLE refunds DROP COLUMN provider_reference;
