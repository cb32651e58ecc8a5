-- +goose Up
SET LOCAL lock_timeout = '5s';

-- A key works once it is approved. One that waits for a second person has a seed, from which
-- the pepper makes its secret at the approval; nothing but the key's MAC is left of it then.
-- A process of the version before makes no key any more: it would make one alone.
ALTER TABLE api_keys
    ADD COLUMN approved_at timestamptz,
    ADD COLUMN seed bytea CHECK (octet_length(seed) = 32),
    -- The key that this one takes the place of, and for how long both work.
    ADD COLUMN replaces text COLLATE "C" REFERENCES api_keys (id),
    ADD COLUMN overlap interval;
UPDATE api_keys k SET approved_at = k.created_at, replaces = (SELECT id FROM api_keys old WHERE old.replaced_by = k.id ORDER BY id LIMIT 1);
ALTER TABLE api_keys
    ADD CONSTRAINT api_keys_waits CHECK (seed IS NULL OR approved_at IS NULL),
    ADD CONSTRAINT api_keys_unapproved CHECK (approved_at IS NOT NULL OR seed IS NOT NULL OR revoked_at IS NOT NULL),
    ADD CONSTRAINT api_keys_replaces CHECK (replaces <> id);

-- Every act on an API key: who, whose key, when and from where. Only what is done before
-- anybody holds an operator's key has nobody's key.
CREATE TABLE key_acts (
    id         text COLLATE "C" PRIMARY KEY CHECK (is_id('kac', id)),
    key_id     text COLLATE "C" NOT NULL REFERENCES api_keys (id),
    action     text NOT NULL CHECK (action IN ('make', 'rotate', 'approve', 'pin', 'revoke')),
    -- The key that was acted with, and its holder at the act.
    operator   text COLLATE "C" REFERENCES api_keys (id),
    holder     text COLLATE "C" CHECK (is_holder(holder)),
    source     text NOT NULL CHECK (source IN ('api', 'command_line', 'seed')),
    -- The client's address; of a command the system's user and host.
    origin     text NOT NULL CHECK (is_line(origin, 255)),
    -- Of a rotation the key before, of a pin the version.
    detail     text CHECK (is_line(detail, 64)),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT key_acts_actor CHECK ((operator IS NULL) = (holder IS NULL) AND (operator IS NOT NULL OR source <> 'api'))
);
CREATE INDEX key_acts_of_key ON key_acts (key_id, id DESC);
CREATE TRIGGER key_acts_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON key_acts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting();

-- +goose Down
DROP TABLE key_acts;
-- A key that waits for its approval works by none of the versions before.
UPDATE api_keys SET revoked_at = now() WHERE approved_at IS NULL AND revoked_at IS NULL;
ALTER TABLE api_keys DROP COLUMN overlap, DROP COLUMN replaces, DROP COLUMN seed, DROP COLUMN approved_at;
