-- +goose NO TRANSACTION
-- +goose Up

-- A merchant's own names (order.reference, customer.reference, SKUs) have one stored form,
-- as internal/payment.BusinessKey has it: one order reference that is spelled in several
-- ways is one order. Rows from before stay as they are. Each statement can run again,
-- because an index that is built beside writers cannot be part of a transaction.

-- +goose StatementBegin
DO $$ BEGIN
    IF current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION 'the database is encoded in %, and has to be in UTF8', current_setting('server_encoding');
    END IF;
END $$;
-- +goose StatementEnd

SET lock_timeout = '5s';

-- Zs, Zl and Zp of Unicode.
CREATE OR REPLACE FUNCTION unicode_spaces() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN U&'\0020\00A0\1680\2000\2001\2002\2003\2004\2005\2006\2007\2008\2009\200A\2028\2029\202F\205F\3000';

-- Cc, Cf, Zl, Zp, the default-ignorable code points, and two that are blank: a bracket expression.
CREATE OR REPLACE FUNCTION invisible_characters() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN '[\u0001-\u001f\u007f-\u009f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f'
        || '\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f'
        || '\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff]';

CREATE OR REPLACE FUNCTION is_business_key(value text, most int) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN char_length(value) BETWEEN 1 AND most AND (value ~ '^[!-~]([ -~]*[!-~])?$' -- ASCII, most often
        OR value IS NFC NORMALIZED AND value = btrim(value, unicode_spaces()) AND value !~ invisible_characters());

-- The form by which a reference is unique. It is that of a row from before, too, whose
-- reference may hold what is refused today; of any other row it is the reference itself.
CREATE OR REPLACE FUNCTION reference_key(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN value ~ '^[!-~]([ -~]*[!-~])?$' THEN value
        ELSE normalize(btrim(regexp_replace(value, invisible_characters(), '', 'g'), unicode_spaces()), NFC) END;

ALTER DOMAIN sku DROP CONSTRAINT IF EXISTS sku_format;
-- Every SKU from before passes, so no table has to be read.
ALTER DOMAIN sku ADD CONSTRAINT sku_format CHECK (is_business_key(VALUE, 64)) NOT VALID;

-- A check would refuse each change of a row from before.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_business_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a reference of % is no business key', NEW.id USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME;
END $$;
-- +goose StatementEnd
DROP TRIGGER IF EXISTS orders_business_keys ON orders;
CREATE TRIGGER orders_business_keys BEFORE INSERT OR UPDATE OF reference, customer_reference ON orders FOR EACH ROW
    WHEN (NOT (is_business_key(NEW.reference, 64) AND is_business_key(NEW.customer_reference, 64)))
    EXECUTE FUNCTION refuse_business_key();

-- Of the orders that were paid for one reference in several forms, the first is in the
-- unique index, so that the reference stays taken; the others are marked, for good.
ALTER TABLE orders ADD COLUMN IF NOT EXISTS reference_repeated boolean NOT NULL DEFAULT false;

-- +goose StatementBegin
DO $$
DECLARE
    unfinished text;
    repeated   text;
    n          bigint;
BEGIN
    CREATE TEMPORARY TABLE colliding ON COMMIT DROP AS
    WITH odd AS (
        SELECT DISTINCT merchant_id, reference_key(reference) AS key FROM orders
        WHERE status IN ('placed', 'confirmed') AND reference !~ '^[!-~]([ -~]*[!-~])?$'),
    form AS ( -- the stored form of a key, and all that are another
        SELECT o.merchant_id, odd.key, o.id, o.status, o.created_at FROM odd JOIN orders o
            ON o.merchant_id = odd.merchant_id AND o.reference = odd.key AND o.status IN ('placed', 'confirmed')
        UNION
        SELECT merchant_id, reference_key(reference), id, status, created_at FROM orders
        WHERE status IN ('placed', 'confirmed') AND reference !~ '^[!-~]([ -~]*[!-~])?$')
    SELECT *, row_number() OVER (PARTITION BY merchant_id, key ORDER BY status = 'confirmed' DESC, created_at, id) AS nth,
        count(*) OVER (PARTITION BY merchant_id, key) AS forms FROM form;
    SELECT string_agg(id || ' of ' || merchant_id, ', ' ORDER BY id) INTO unfinished FROM (
        SELECT id, merchant_id FROM colliding WHERE forms > 1 AND status = 'placed' ORDER BY id LIMIT 20) c;
    IF unfinished IS NOT NULL THEN
        RAISE EXCEPTION 'orders in progress have a reference that another live or paid order has in another form: %', unfinished
            USING HINT = 'Cancel them or wait for their end, then migrate again.';
    END IF;
    UPDATE orders o SET reference_repeated = true FROM colliding c
    WHERE c.forms > 1 AND c.nth > 1 AND o.merchant_id = c.merchant_id AND o.id = c.id AND NOT o.reference_repeated;
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n > 0 THEN
        RAISE WARNING '% orders were paid for a reference that an earlier order has in another form: see orders.reference_repeated', n;
    END IF;
END $$;
-- +goose StatementEnd

-- The index waits for every transaction that was there before it.
SET lock_timeout = 0;
-- What a run before this one may have left half built.
DROP INDEX CONCURRENTLY IF EXISTS orders_one_live_or_won_key;
-- orders_one_live_or_won stays: a process of the version before names it in ON CONFLICT,
-- and references are looked up by it.
CREATE UNIQUE INDEX CONCURRENTLY orders_one_live_or_won_key ON orders (merchant_id, reference_key(reference))
    WHERE status IN ('placed', 'confirmed') AND NOT reference_repeated;
RESET lock_timeout;

-- +goose Down
SET lock_timeout = '5s';
DROP INDEX IF EXISTS orders_one_live_or_won_key;
DROP TRIGGER IF EXISTS orders_business_keys ON orders;
DROP FUNCTION IF EXISTS refuse_business_key;
ALTER TABLE orders DROP COLUMN IF EXISTS reference_repeated;
ALTER DOMAIN sku DROP CONSTRAINT IF EXISTS sku_format;
-- An SKU that is no token stays; its stock can no longer be changed by the version before.
ALTER DOMAIN sku ADD CONSTRAINT sku_format CHECK (VALUE ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$') NOT VALID;
DROP FUNCTION IF EXISTS reference_key;
DROP FUNCTION IF EXISTS is_business_key;
DROP FUNCTION IF EXISTS invisible_characters;
DROP FUNCTION IF EXISTS unicode_spaces;
RESET lock_timeout;
