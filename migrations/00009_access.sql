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

-- As internal/payment.ParseCurrency has them: a new one is added in both.
CREATE FUNCTION currencies() RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN string_to_array(
    'AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD '
    || 'CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD '
    || 'GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD '
    || 'KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO '
    || 'NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE '
    || 'SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND '
    || 'VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG', ' ');
ALTER TABLE orders DROP CONSTRAINT orders_currency_check, ADD CONSTRAINT orders_currency_check CHECK (currency = ANY (currencies()));
ALTER TABLE payments DROP CONSTRAINT payments_currency_check, ADD CONSTRAINT payments_currency_check CHECK (currency = ANY (currencies()));

-- Row-level security on every tenant table: a session sees the rows of the merchant
-- that its setting payments.merchant names, everybody's where it is '*', and none
-- where it is not set (internal/postgres.ForTenant). Forced, since where the read
-- model stands in a database of its own the service's role owns it. A later
-- migration calls this for each table that it makes with a merchant_id.
-- +goose StatementBegin
CREATE FUNCTION isolate_tenants(tenant_table regclass, merchant_column name DEFAULT 'merchant_id') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format('CREATE POLICY one_tenant ON %s USING (current_setting(''payments.merchant'', true) IN (''*'', %I))', tenant_table, merchant_column);
END $$;
-- +goose StatementEnd

SELECT isolate_tenants(c.oid::regclass)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND a.attname = 'merchant_id' AND NOT a.attisdropped;
SELECT isolate_tenants('merchants', 'id');

-- +goose Down
-- +goose StatementBegin
DO $$
DECLARE
    t regclass;
BEGIN
    FOR t IN SELECT polrelid::regclass FROM pg_policy WHERE polname = 'one_tenant' LOOP
        EXECUTE format('DROP POLICY one_tenant ON %s', t);
        EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', t);
    END LOOP;
END $$;
-- +goose StatementEnd
DROP FUNCTION isolate_tenants;
ALTER TABLE payments DROP CONSTRAINT payments_currency_check, ADD CONSTRAINT payments_currency_check CHECK (currency ~ '^[A-Z]{3}$');
ALTER TABLE orders DROP CONSTRAINT orders_currency_check, ADD CONSTRAINT orders_currency_check CHECK (currency ~ '^[A-Z]{3}$');
DROP FUNCTION currencies;
ALTER TABLE api_keys
    DROP CONSTRAINT api_keys_replaced, DROP CONSTRAINT api_keys_networks,
    DROP COLUMN replaced_by, DROP COLUMN last_used_at, DROP COLUMN expires_at, DROP COLUMN networks,
    DROP CONSTRAINT api_keys_role_check,
    DROP CONSTRAINT api_keys_merchant,
    ADD CONSTRAINT api_keys_role_check CHECK (role IN ('merchant', 'operator')),
    ADD CONSTRAINT api_keys_merchant CHECK ((role = 'merchant') = (merchant_id IS NOT NULL));
