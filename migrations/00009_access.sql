-- +goose Up

-- Roles, as internal/access.Roles has them. A merchant's roles belong to a merchant.
ALTER TABLE api_keys
    DROP CONSTRAINT api_keys_role_check,
    DROP CONSTRAINT api_keys_merchant,
    ADD CONSTRAINT api_keys_role_check CHECK (role IN ('merchant', 'merchant_reader', 'support', 'operator', 'auditor')),
    ADD CONSTRAINT api_keys_merchant CHECK ((role IN ('merchant', 'merchant_reader')) = (merchant_id IS NOT NULL)),
    -- Where the key may be used from; empty is anywhere.
    ADD COLUMN networks cidr[] NOT NULL DEFAULT '{}',
    ADD CONSTRAINT api_keys_networks CHECK (cardinality(networks) <= 32 AND array_position(networks, NULL) IS NULL),
    ADD COLUMN expires_at timestamptz,
    -- To the minute.
    ADD COLUMN last_used_at timestamptz,
    -- The key that this one was rotated to.
    ADD COLUMN replaced_by text COLLATE "C" REFERENCES api_keys (id),
    ADD CONSTRAINT api_keys_replaced CHECK (replaced_by <> id);

-- +goose Down
ALTER TABLE api_keys
    DROP CONSTRAINT api_keys_replaced, DROP CONSTRAINT api_keys_networks,
    DROP COLUMN replaced_by, DROP COLUMN last_used_at, DROP COLUMN expires_at, DROP COLUMN networks,
    DROP CONSTRAINT api_keys_role_check,
    DROP CONSTRAINT api_keys_merchant,
    ADD CONSTRAINT api_keys_role_check CHECK (role IN ('merchant', 'operator')),
    ADD CONSTRAINT api_keys_merchant CHECK ((role = 'merchant') = (merchant_id IS NOT NULL));
