-- +goose Up

-- What the domain's constructors refuse and the database took: one table of boundary
-- values (internal/api, TestBoundariesAgree) is held against both, and against openapi.yaml.

-- One line of text, as internal/payment.CheckText has it.
CREATE FUNCTION is_line(value text, most int) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN char_length(value) BETWEEN 1 AND most AND value !~ '[\u0001-\u001f\u007f-\u009f]';

-- As internal/payment.CheckReason has it.
CREATE FUNCTION is_reason(value text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN is_line(value, 1000) AND value ~ '[^ ]';

-- As order.Operations has it. A member that is missing makes no check NULL, which would pass.
CREATE FUNCTION is_verdict(v jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN coalesce(CASE v->>'verdict' WHEN 'succeeded' THEN is_line(v->>'reference', 64) WHEN 'rejected' THEN is_line(v->>'code', 64) END, false)
        AND coalesce(is_reason(v->>'detail'), true);

CREATE FUNCTION is_set(a text[]) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT count(*) = count(DISTINCT e) FROM unnest(a) AS e);

-- As access.ParseNetwork has it: callers' IPv4 addresses are compared as themselves, so
-- that a network of mapped ones would let nobody in.
CREATE FUNCTION are_networks(a cidr[]) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN cardinality(a) <= 32 AND NOT EXISTS (SELECT FROM unnest(a) AS n WHERE n IS NULL OR n <<= '::ffff:0:0/96');

ALTER TABLE webhook_endpoints
    DROP CONSTRAINT webhook_endpoints_url,
    -- An absolute URL in the characters of RFC 3986, without credentials and fragment; whether
    -- its address and port may be delivered to is for webhook.Guard alone to say.
    ADD CONSTRAINT webhook_endpoints_url CHECK (octet_length(url) <= 2048 AND url ~ ('^https?://'
        || '(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?)(:[0-9]{1,5})?'
        || '([/?]([A-Za-z0-9._~:/?@!$&''()*+,;=-]|%[0-9A-Fa-f]{2})*)?$')),
    DROP CONSTRAINT webhook_endpoints_events,
    ADD CONSTRAINT webhook_endpoints_events CHECK (coalesce(array_ndims(events) = 1, false) AND is_set(events)
        AND array_position(events, NULL) IS NULL AND (events = '{*}' OR events <@ '{order.placed,stock.reserved,stock.rejected,
            payment.authorized,payment.declined,payment.captured,payment.voided,stock.released,order.confirmed,order.failed,
            order.canceled,refund.requested,refund.succeeded,refund.failed,payment.review_required}'::text[]));

ALTER TABLE api_keys
    DROP CONSTRAINT api_keys_networks,
    ADD CONSTRAINT api_keys_networks CHECK (are_networks(networks)),
    ADD CONSTRAINT api_keys_expiry CHECK (expires_at > created_at);

-- Of what is encrypted the database sees the length alone: at least that of nonce and
-- tag, so that an address in the clear is mostly refused.
ALTER TABLE orders
    ADD CONSTRAINT orders_customer_email CHECK (octet_length(customer_email_ciphertext) BETWEEN 31 AND 2048);

-- What was written before stays as it was: both tables are append-only, and a reason
-- of blanks was taken.
ALTER TABLE saga_actions
    DROP CONSTRAINT saga_actions_operator_check,
    ADD CONSTRAINT saga_actions_operator CHECK (is_line(operator, 64)) NOT VALID,
    DROP CONSTRAINT saga_actions_reason_check,
    ADD CONSTRAINT saga_actions_reason CHECK (is_reason(reason)) NOT VALID,
    DROP CONSTRAINT saga_actions_verdict,
    ADD CONSTRAINT saga_actions_verdict CHECK ((action IN ('propose', 'approve')) = (verdict IS NOT NULL)
        AND (verdict IS NULL OR is_verdict(verdict))) NOT VALID;
ALTER TABLE inbox_discarded
    DROP CONSTRAINT inbox_discarded_reason_check,
    ADD CONSTRAINT inbox_discarded_reason CHECK (is_reason(reason)) NOT VALID;

ALTER TABLE idempotency_keys
    DROP CONSTRAINT idempotency_keys_key_check,
    -- Visible ASCII of a client's; the service's own, of callers without a merchant, have a space.
    ADD CONSTRAINT idempotency_keys_key CHECK (key ~ '^[ -~]{1,255}$');

-- +goose Down
ALTER TABLE idempotency_keys
    DROP CONSTRAINT idempotency_keys_key,
    ADD CONSTRAINT idempotency_keys_key_check CHECK (octet_length(key) BETWEEN 1 AND 255);
ALTER TABLE inbox_discarded
    DROP CONSTRAINT inbox_discarded_reason,
    ADD CONSTRAINT inbox_discarded_reason_check CHECK (reason <> '');
ALTER TABLE saga_actions
    DROP CONSTRAINT saga_actions_operator,
    ADD CONSTRAINT saga_actions_operator_check CHECK (char_length(operator) BETWEEN 1 AND 64),
    DROP CONSTRAINT saga_actions_reason,
    ADD CONSTRAINT saga_actions_reason_check CHECK (char_length(reason) BETWEEN 1 AND 1000),
    DROP CONSTRAINT saga_actions_verdict,
    ADD CONSTRAINT saga_actions_verdict CHECK ((action IN ('propose', 'approve')) = (verdict IS NOT NULL));
ALTER TABLE orders DROP CONSTRAINT orders_customer_email;
ALTER TABLE api_keys
    DROP CONSTRAINT api_keys_expiry,
    DROP CONSTRAINT api_keys_networks,
    ADD CONSTRAINT api_keys_networks CHECK (cardinality(networks) <= 32 AND array_position(networks, NULL) IS NULL);
ALTER TABLE webhook_endpoints
    DROP CONSTRAINT webhook_endpoints_url,
    ADD CONSTRAINT webhook_endpoints_url CHECK (octet_length(url) <= 2048 AND url ~ '^https?://[^/?#@[:space:]]+([/?][^#[:space:]]*)?$'),
    DROP CONSTRAINT webhook_endpoints_events,
    ADD CONSTRAINT webhook_endpoints_events CHECK (cardinality(events) BETWEEN 1 AND 32
        AND array_position(events, NULL) IS NULL AND (events = '{*}' OR events <@ '{order.placed,stock.reserved,stock.rejected,
            payment.authorized,payment.declined,payment.captured,payment.voided,stock.released,order.confirmed,order.failed,
            order.canceled,refund.requested,refund.succeeded,refund.failed,payment.review_required}'::text[]));
DROP FUNCTION are_networks, is_set, is_verdict, is_reason, is_line;
