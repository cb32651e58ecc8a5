-- +goose Up

-- The consumers' side (internal/inbox). Nothing here refers to a table of the
-- write model, so that it can live with the read model in a database of its own.

-- A message's id is seen once a consumer, for as long as the day the id was made
-- on is kept. The day comes from the id itself (a UUIDv7, or a TypeID of one), so
-- that whenever the message comes again it meets its own row, in one partition.
ALTER TABLE inbox_messages RENAME TO inbox_messages_before;
ALTER INDEX inbox_messages_pkey RENAME TO inbox_messages_before_pkey;
CREATE TABLE inbox_messages (
    consumer   text COLLATE "C" NOT NULL,
    made_on    date NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (consumer, made_on, message_id)
) PARTITION BY RANGE (made_on);
-- Ids that carry no time have the day 0001-01-01, and are kept for good.
CREATE TABLE inbox_messages_undated PARTITION OF inbox_messages FOR VALUES FROM (MINVALUE) TO ('1970-01-01');
-- What has no partition yet: maintenance that is late loses nothing.
CREATE TABLE inbox_messages_default PARTITION OF inbox_messages DEFAULT;

INSERT INTO inbox_messages (consumer, made_on, message_id)
SELECT consumer, CASE WHEN message_id ~ '^(.*_)?[0-7][0-9a-hjkmnp-tv-z]{9}[ef][0-9a-hjkmnp-tv-z]{15}$'
        THEN (SELECT date '1970-01-01' + floor(sum((strpos('0123456789abcdefghjkmnpqrstvwxyz', substr(right(message_id, 26), i, 1)) - 1)
                * 32::numeric ^ (10 - i)) / 86400000)::int
              FROM generate_series(1, 10) AS i)
        ELSE '0001-01-01' END,
    message_id
FROM inbox_messages_before;
DROP TABLE inbox_messages_before;

-- Ids made before this day are forgotten: whether such a message was applied is
-- known to the handler's own watermark alone.
CREATE TABLE inbox_retention (
    kept_from date NOT NULL,
    one_row   boolean PRIMARY KEY DEFAULT true CHECK (one_row)
);
INSERT INTO inbox_retention (kept_from) VALUES ('1970-01-01');

-- The partitions belong to the owner; the service may only ask for days ahead and
-- for the end of days that are over. Both give up after 200 ms behind a lock,
-- since whoever waits for a table's lock holds up all that come after.

-- +goose StatementBegin
CREATE FUNCTION inbox_keep_days(first date, last date) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    day  date;
    name text;
    made int := 0;
BEGIN
    IF last - first > 400 THEN
        RAISE EXCEPTION 'from % to % are too many days', first, last USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtextextended('inbox_messages', 0)) THEN
        RETURN 0; -- somebody else is at it
    END IF;
    first := greatest(first, (SELECT kept_from FROM inbox_retention));
    FOR day IN SELECT first + n FROM generate_series(0, last - first) AS n LOOP
        name := 'inbox_messages_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass(name) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE inbox_messages INCLUDING ALL)', name);
        -- Attaching locks the default partition anyway, and refuses while it holds rows of the day.
        LOCK TABLE inbox_messages_default IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('WITH moved AS (DELETE FROM inbox_messages_default WHERE made_on = %L RETURNING *)
            INSERT INTO %I (consumer, made_on, message_id) SELECT consumer, made_on, message_id FROM moved', day, name);
        EXECUTE format('ALTER TABLE inbox_messages ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, day, day + 1);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION inbox_forget_days(before date) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    name    text;
    dropped int := 0;
BEGIN
    IF before > current_date THEN
        RAISE EXCEPTION 'the days before % are not over', before USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtextextended('inbox_messages', 0))
        OR before <= (SELECT kept_from FROM inbox_retention)
    THEN
        RETURN 0;
    END IF;
    -- Waits for every batch under way, so that none has read the old day and not yet committed its ids.
    LOCK TABLE inbox_messages IN ACCESS EXCLUSIVE MODE;
    FOR name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'inbox_messages'::regclass AND c.relname ~ '^inbox_messages_\d{8,}$'
            AND to_date(substr(c.relname, 16), 'YYYYMMDD') < before
    LOOP
        EXECUTE format('DROP TABLE %I', name);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM inbox_messages_default WHERE made_on < before;
    UPDATE inbox_retention SET kept_from = before;
    RETURN dropped;
END $$;
-- +goose StatementEnd

SELECT inbox_keep_days(current_date - 1, current_date + 3);

-- How far a consumer has come in a partition, written in the transaction of the
-- effects. Who holds an older generation of the consumer group is refused.
CREATE TABLE inbox_offsets (
    consumer    text COLLATE "C" NOT NULL,
    topic       text COLLATE "C" NOT NULL,
    partition   int NOT NULL,
    generation  int NOT NULL,
    -- NULL until the first message is taken in.
    next_offset bigint,
    -- The id of the message before next_offset, by which the log is known again.
    last_id     text COLLATE "C",
    -- Messages [tried_from, tried_until) were in hand in an attempt that has not
    -- ended well; the first of them attempts times, the others once.
    tried_from  bigint NOT NULL DEFAULT 0,
    tried_until bigint NOT NULL DEFAULT 0,
    attempts    int NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, topic, partition)
) WITH (fillfactor = 50); -- a hot row: leave room for HOT updates

-- A key whose messages wait for a person. Its id is a digest of consumer, topic
-- and key (internal/inbox.parkedID): a foreign key can be longer than an index
-- entry may be. Whoever applies, spills or discards a message of a parked key
-- locks this row first.
CREATE TABLE inbox_parked_keys (
    id           text COLLATE "C" PRIMARY KEY,
    consumer     text COLLATE "C" NOT NULL,
    topic        text COLLATE "C" NOT NULL,
    key          bytea NOT NULL,
    -- Of the error that holds the key: alike for errors that differ in ids and numbers only.
    fingerprint  text COLLATE "C" NOT NULL,
    replays      int NOT NULL DEFAULT 0,
    parked_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX inbox_parked_keys_oldest ON inbox_parked_keys (consumer, parked_at);

ALTER TABLE inbox_parked RENAME TO inbox_parked_before;
ALTER INDEX inbox_parked_pkey RENAME TO inbox_parked_before_pkey;
DROP INDEX inbox_parked_key;
-- The message that cannot be applied, and those of its key behind it.
CREATE TABLE inbox_parked (
    parked_key text COLLATE "C" NOT NULL REFERENCES inbox_parked_keys (id),
    "offset"   bigint NOT NULL,
    partition  int NOT NULL,
    headers    jsonb NOT NULL,
    value      bytea NOT NULL,
    reason     text NOT NULL,
    parked_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (parked_key, "offset", partition)
);
INSERT INTO inbox_parked_keys (id, consumer, topic, key, fingerprint, parked_at)
SELECT DISTINCT ON (id) id, consumer, topic, key, 'before-fingerprints', parked_at
FROM (SELECT *, 'prk_' || left(encode(sha256(sha256(convert_to(consumer, 'UTF8')) || sha256(convert_to(topic, 'UTF8')) || sha256(key)), 'hex'), 32) AS id
      FROM inbox_parked_before) p
ORDER BY id, "offset";
INSERT INTO inbox_parked (parked_key, "offset", partition, headers, value, reason, parked_at)
SELECT 'prk_' || left(encode(sha256(sha256(convert_to(consumer, 'UTF8')) || sha256(convert_to(topic, 'UTF8')) || sha256(key)), 'hex'), 32),
    "offset", partition, headers, value, reason, parked_at
FROM inbox_parked_before;
DROP TABLE inbox_parked_before;

-- What a person has decided never to apply. Append-only.
CREATE TABLE inbox_discarded (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    parked_key   text COLLATE "C" NOT NULL,
    consumer     text COLLATE "C" NOT NULL,
    topic        text COLLATE "C" NOT NULL,
    partition    int NOT NULL,
    "offset"     bigint NOT NULL,
    key          bytea NOT NULL,
    headers      jsonb NOT NULL,
    value        bytea NOT NULL,
    error        text NOT NULL,
    parked_at    timestamptz NOT NULL,
    discarded_at timestamptz NOT NULL DEFAULT now(),
    discarded_by text NOT NULL CHECK (discarded_by <> ''),
    reason       text NOT NULL CHECK (reason <> '')
);
-- +goose StatementBegin
CREATE FUNCTION refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
-- +goose StatementEnd
CREATE TRIGGER inbox_discarded_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON inbox_discarded
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting();

-- +goose Down
DROP TABLE inbox_discarded, inbox_parked, inbox_parked_keys, inbox_offsets, inbox_retention, inbox_messages;
DROP FUNCTION refuse_rewriting, inbox_keep_days, inbox_forget_days;
CREATE TABLE inbox_messages (
    consumer    text COLLATE "C" NOT NULL,
    message_id  text COLLATE "C" NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, message_id)
);
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
CREATE INDEX inbox_parked_key ON inbox_parked (consumer, sha256(key));
