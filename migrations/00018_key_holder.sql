-- +goose Up

-- Whom an API key was given to, as internal/payment.CheckHolder has it. Two that differ by
-- case alone are one (internal/saga.Approve): who proposes a verdict does not approve it by
-- another key.
CREATE FUNCTION is_holder(value text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN char_length(value) <= 64 AND value ~ '^[!-~]+( [!-~]+)*$';

ALTER TABLE api_keys ADD COLUMN holder text COLLATE "C";
-- Who holds the keys that there are nobody wrote down: each key is its own holder, and what
-- it was rotated to has the same one.
WITH RECURSIVE line (id, holder) AS (
    SELECT k.id, k.id FROM api_keys k WHERE NOT EXISTS (SELECT FROM api_keys before WHERE before.replaced_by = k.id)
    UNION
    SELECT k.replaced_by, line.holder FROM line JOIN api_keys k USING (id) WHERE k.replaced_by IS NOT NULL
)
UPDATE api_keys k SET holder = line.holder FROM line WHERE line.id = k.id AND k.merchant_id IS NULL;
-- Of a merchant's key the holder may be unknown.
ALTER TABLE api_keys ADD CONSTRAINT api_keys_holder CHECK (coalesce(is_holder(holder), merchant_id IS NOT NULL));

-- The holder as it was at the act. What was written before may break the rules that are not
-- validated, at which an UPDATE would look. An operator that is no key is from before there
-- was one on the command line. NOT NULL shuts out a process of the version before, too: it
-- would take two keys of one person for two.
ALTER TABLE saga_actions
    DROP CONSTRAINT saga_actions_operator,
    DROP CONSTRAINT saga_actions_reason,
    DROP CONSTRAINT saga_actions_verdict,
    ADD COLUMN holder text COLLATE "C";
UPDATE saga_actions a SET holder = coalesce((SELECT k.holder FROM api_keys k WHERE k.id = a.operator), a.operator);
ALTER TABLE saga_actions
    ALTER COLUMN holder SET NOT NULL,
    ADD CONSTRAINT saga_actions_holder CHECK (is_holder(holder)) NOT VALID,
    ADD CONSTRAINT saga_actions_operator CHECK (is_line(operator, 64)) NOT VALID,
    ADD CONSTRAINT saga_actions_reason CHECK (is_reason(reason)) NOT VALID,
    ADD CONSTRAINT saga_actions_verdict CHECK ((action IN ('propose', 'approve')) = (verdict IS NOT NULL)
        AND (verdict IS NULL OR is_verdict(verdict))) NOT VALID;

-- NULL of what was discarded before: nobody rewrites that.
ALTER TABLE inbox_discarded
    ADD COLUMN holder text COLLATE "C",
    ADD CONSTRAINT inbox_discarded_holder CHECK (coalesce(is_holder(holder), false)) NOT VALID;

-- +goose Down
ALTER TABLE inbox_discarded DROP COLUMN holder;
ALTER TABLE saga_actions DROP COLUMN holder;
ALTER TABLE api_keys DROP COLUMN holder;
DROP FUNCTION is_holder;
