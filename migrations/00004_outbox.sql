-- +goose Up

-- The outbox becomes append-only partitions by position, read by several shards.
-- Why it looks like this: internal/outbox/doc.go and docs/decisions/outbox-reading.md.

ALTER TABLE outbox RENAME TO outbox_unpartitioned;
ALTER TABLE outbox_relays RENAME TO outbox_single_relay;
ALTER INDEX outbox_pkey RENAME TO outbox_unpartitioned_pkey;
ALTER INDEX outbox_xid RENAME TO outbox_unpartitioned_xid;
ALTER INDEX outbox_relays_pkey RENAME TO outbox_single_relay_pkey;

CREATE SEQUENCE outbox_position;

-- xid stands before position: defaults are evaluated in that order, so that
-- whoever has drawn a position has a transaction id already, by which its end can
-- be awaited (outbox_extend).
CREATE TABLE outbox (
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    position    bigint NOT NULL DEFAULT nextval('outbox_position') PRIMARY KEY,
    merchant_id text COLLATE "C" NOT NULL,
    id          text COLLATE "C" NOT NULL,
    topic       text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    -- murmur2 of the key as Kafka's Java client has it, 31 bits; its remainder is the shard.
    key_hash    int NOT NULL CHECK (key_hash >= 0),
    sequence    bigint NOT NULL CHECK (sequence >= 1),
    -- Names and values in turn.
    headers     text[] NOT NULL CHECK (cardinality(headers) % 2 = 0),
    payload     bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY RANGE (position);
CREATE INDEX outbox_xid ON outbox (xid, position);
ALTER SEQUENCE outbox_position OWNED BY outbox.position;

-- The first header of a name: for people and tests.
-- +goose StatementBegin
CREATE FUNCTION outbox_header(headers text[], name text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT headers[i + 1] FROM generate_series(1, cardinality(headers), 2) i WHERE headers[i] = name ORDER BY i LIMIT 1);
-- +goose StatementEnd

-- The partitions' own schema: what is granted on tables of public does not reach
-- into them, so that the service writes and reads through the parent alone.
CREATE SCHEMA outbox_parts;

CREATE TABLE outbox_partitions (
    parent     text COLLATE "C" NOT NULL CHECK (parent IN ('outbox', 'outbox_checkpoints')),
    low        bigint NOT NULL,
    high       bigint NOT NULL, -- positions (or n) from low to below high
    -- Set once every position below high is drawn: each transaction that drew one
    -- is older than closed_xid. Who has seen all of those end has seen all rows
    -- that the partition will ever have.
    closed_xid xid8,
    closed_at  timestamptz,
    -- outbox_dropped knows its keys.
    sealed     boolean NOT NULL DEFAULT false,
    dropped_at timestamptz,
    PRIMARY KEY (parent, low),
    CHECK (low < high)
);

-- The sequence of each key's last message that is in no partition any more, so
-- that what is left can still be checked for gaps.
CREATE TABLE outbox_dropped (
    key      text COLLATE "C" PRIMARY KEY,
    sequence bigint NOT NULL CHECK (sequence >= 1)
);

-- One row a process that relays. Two renewals a second of it are all that is ever updated.
CREATE TABLE outbox_relays (
    owner       text COLLATE "C" PRIMARY KEY,
    joined_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until timestamptz NOT NULL
) WITH (fillfactor = 50);

-- A shard is its owner's while the owner's lease lasts; a claim adds one to its epoch.
CREATE TABLE outbox_shards (
    shard int PRIMARY KEY CHECK (shard >= 0),
    owner text COLLATE "C",
    epoch bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- How far each shard has come: of its rows the one with the highest epoch and then
-- the highest n. Append-only: a cursor updated in place leaves a dead version behind
-- at every step, and the next step walks over all of them while an open transaction
-- keeps them. done is the snapshot whose visible rows are all published. While what
-- a later snapshot sees is published in pieces, page_snapshot is that one, it sees
-- nothing beyond page_end, and its rows up to page_position are published.
CREATE SEQUENCE outbox_checkpoint_n;
CREATE TABLE outbox_checkpoints (
    n             bigint NOT NULL DEFAULT nextval('outbox_checkpoint_n'),
    shard         int NOT NULL,
    epoch         bigint NOT NULL,
    done          pg_snapshot NOT NULL,
    page_snapshot pg_snapshot,
    page_position bigint NOT NULL DEFAULT 0,
    page_end      bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (shard, epoch, n)
) PARTITION BY RANGE (n);
ALTER SEQUENCE outbox_checkpoint_n OWNED BY outbox_checkpoints.n;

CREATE VIEW outbox_cursors AS
SELECT s.shard, s.owner, s.epoch, c.n, c.done, c.page_snapshot, c.page_position, c.page_end
FROM outbox_shards s LEFT JOIN LATERAL (
    SELECT * FROM outbox_checkpoints WHERE shard = s.shard ORDER BY epoch DESC, n DESC LIMIT 1) c ON true;

-- Keeps `ahead` partitions of `size` beyond the newest position, notes which are
-- closed, and returns how many positions are left. ATTACH waits for no writer and
-- no writer waits for it; CREATE … PARTITION OF would lock them all out.
-- +goose StatementBegin
CREATE FUNCTION outbox_extend(parent_name text, size bigint, ahead int) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    last bigint := coalesce(pg_sequence_last_value(
        CASE parent_name WHEN 'outbox' THEN 'outbox_position' ELSE 'outbox_checkpoint_n' END::regclass), 0);
    top  bigint;
    part text;
BEGIN
    IF size < 1 OR ahead < 1 THEN
        RAISE EXCEPTION 'a partition holds at least one row, and one is ahead' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- A snapshot that is younger than `last`, as each statement of a function has its own.
    UPDATE outbox_partitions SET closed_xid = pg_snapshot_xmax(pg_current_snapshot()), closed_at = clock_timestamp()
    WHERE parent = parent_name AND closed_xid IS NULL AND high <= last + 1;
    SELECT coalesce(max(high), 1) INTO top FROM outbox_partitions WHERE parent = parent_name;
    IF top > last + size * ahead THEN
        RETURN top - last - 1;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('outbox_extend ' || parent_name));
    SELECT greatest(coalesce(max(high), 1), 1) INTO top FROM outbox_partitions WHERE parent = parent_name;
    WHILE top <= last + size * ahead LOOP
        part := parent_name || '_' || top;
        EXECUTE format('CREATE TABLE outbox_parts.%I (LIKE public.%I INCLUDING CONSTRAINTS INCLUDING STORAGE)', part, parent_name);
        IF parent_name = 'outbox' THEN
            -- The lock of the aggregate's row is what keeps sequences apart; this holds the mistakes of a writer
            -- without it, as far as a partition reaches: it cannot span them.
            EXECUTE format('ALTER TABLE outbox_parts.%I ADD CONSTRAINT %I UNIQUE (key, sequence)', part, part || '_one_event_a_sequence');
        END IF;
        EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION outbox_parts.%I FOR VALUES FROM (%s) TO (%s)',
            parent_name, part, top, top + size);
        INSERT INTO outbox_partitions (parent, low, high) VALUES (parent_name, top, top + size);
        top := top + size;
    END LOOP;
    RETURN top - last - 1;
END $$;
-- +goose StatementEnd

-- Takes the next step with the oldest partition, once it has been closed for `age`:
-- 'sealed' (outbox_dropped knows its keys; call again), then 'dropped'. Or it says
-- what is in the way: 'transaction' (one is open that is older than the partition's
-- end), 'shard' (a cursor has not passed), 'gap' (a key's messages are not 1, 2, 3 …:
-- the evidence stays), 'lock' (somebody uses the table; a writer waits for this try
-- 50 ms at most). '' is: nothing to do.
-- +goose StatementBegin
CREATE FUNCTION outbox_retire(parent_name text, age interval, OUT state text, OUT overdue interval)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '50ms' AS $$
DECLARE
    p    outbox_partitions;
    part text;
    gaps bigint;
BEGIN
    state := ''; overdue := '0';
    IF NOT pg_try_advisory_xact_lock(hashtext('outbox_retire ' || parent_name)) THEN
        RETURN;
    END IF;
    SELECT * INTO p FROM outbox_partitions WHERE parent = parent_name AND dropped_at IS NULL ORDER BY low LIMIT 1;
    IF p.closed_at IS NULL OR p.closed_at + age > clock_timestamp() THEN
        RETURN;
    END IF;
    overdue := clock_timestamp() - p.closed_at - age;
    part := parent_name || '_' || p.low;
    IF parent_name = 'outbox' THEN
        IF pg_snapshot_xmin(pg_current_snapshot()) < p.closed_xid THEN
            state := 'transaction';
            RETURN;
        END IF;
        IF NOT EXISTS (SELECT FROM outbox_shards)
            OR EXISTS (SELECT FROM outbox_cursors WHERE done IS NULL OR pg_snapshot_xmin(done) < p.closed_xid) THEN
            state := 'shard';
            RETURN;
        END IF;
    ELSIF EXISTS (SELECT FROM outbox_cursors WHERE n IS NULL OR n < p.high) THEN
        state := 'shard';
        RETURN;
    END IF;
    IF NOT p.sealed THEN
        IF parent_name = 'outbox' THEN
            EXECUTE format('
                WITH keys AS (SELECT key, min(sequence) AS low, max(sequence) AS high, count(*) AS n FROM outbox_parts.%I GROUP BY key)
                SELECT count(*) FROM keys LEFT JOIN outbox_dropped d USING (key)
                WHERE n <> high - low + 1 OR low <> coalesce(d.sequence, 0) + 1', part) INTO gaps;
            IF gaps > 0 THEN
                state := 'gap';
                RETURN;
            END IF;
            EXECUTE format('
                INSERT INTO outbox_dropped SELECT key, max(sequence) FROM outbox_parts.%I GROUP BY key
                ON CONFLICT (key) DO UPDATE SET sequence = excluded.sequence', part);
        END IF;
        UPDATE outbox_partitions SET sealed = true WHERE parent = parent_name AND low = p.low;
        state := 'sealed';
        RETURN;
    END IF;
    BEGIN
        EXECUTE format('ALTER TABLE public.%I DETACH PARTITION outbox_parts.%I', parent_name, part);
        EXECUTE format('DROP TABLE outbox_parts.%I', part);
        UPDATE outbox_partitions SET dropped_at = clock_timestamp() WHERE parent = parent_name AND low = p.low;
        state := 'dropped';
    EXCEPTION WHEN lock_not_available THEN
        state := 'lock';
    END;
END $$;
-- +goose StatementEnd

REVOKE EXECUTE ON FUNCTION outbox_extend, outbox_retire FROM PUBLIC;

-- What was written so far keeps its positions and transaction ids. One shard stands
-- where the one relay stood; the first start divides it (internal/outbox).
SELECT setval('outbox_position', greatest(max(position), 1), max(position) IS NOT NULL) FROM outbox_unpartitioned;
SELECT outbox_extend('outbox', greatest((SELECT max(position) FROM outbox_unpartitioned), 1000000), 1),
    outbox_extend('outbox_checkpoints', 1000000, 1);
-- Kept here only, since Kafka's hash is not SQL's business.
-- +goose StatementBegin
CREATE FUNCTION pg_temp.murmur2(data bytea) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    m constant bigint := 1540483477; -- 0x5bd1e995
    mask constant bigint := 4294967295;
    n int := octet_length(data);
    h bigint := 2538058380 # n; -- seed 0x9747b28c
    k bigint;
    i int := 0;
BEGIN
    WHILE n - i >= 4 LOOP
        k := get_byte(data, i)::bigint | (get_byte(data, i + 1)::bigint << 8) | (get_byte(data, i + 2)::bigint << 16)
            | (get_byte(data, i + 3)::bigint << 24);
        k := k * m & mask;
        k := k # (k >> 24);
        k := k * m & mask;
        h := (h * m & mask) # k;
        i := i + 4;
    END LOOP;
    IF n - i = 3 THEN h := h # (get_byte(data, i + 2)::bigint << 16); END IF;
    IF n - i >= 2 THEN h := h # (get_byte(data, i + 1)::bigint << 8); END IF;
    IF n - i >= 1 THEN
        h := (h # get_byte(data, i)) * m & mask;
    END IF;
    h := h # (h >> 13);
    h := h * m & mask;
    h := h # (h >> 15);
    RETURN (h & 2147483647)::int;
END $$;
-- +goose StatementEnd
INSERT INTO outbox (xid, position, merchant_id, id, topic, key, key_hash, sequence, headers, payload, created_at)
SELECT xid, position, merchant_id, id, topic, key, pg_temp.murmur2(convert_to(key, 'UTF8')), sequence,
    ARRAY(SELECT v FROM jsonb_array_elements(headers) WITH ORDINALITY p (pair, i),
        jsonb_array_elements_text(pair) WITH ORDINALITY e (v, j) ORDER BY i, j), payload, created_at
FROM outbox_unpartitioned;
INSERT INTO outbox_shards (shard) VALUES (0);
INSERT INTO outbox_checkpoints (shard, epoch, done)
SELECT 0, 0, coalesce((SELECT done FROM outbox_single_relay WHERE name = 'main'), '1:1:');
DROP FUNCTION pg_temp.murmur2(bytea);
DROP TABLE outbox_unpartitioned, outbox_single_relay;

-- +goose Down
ALTER TABLE outbox RENAME TO outbox_partitioned;
ALTER INDEX outbox_pkey RENAME TO outbox_partitioned_pkey;
ALTER INDEX outbox_xid RENAME TO outbox_partitioned_xid;
ALTER INDEX outbox_relays_pkey RENAME TO outbox_member_pkey;
ALTER TABLE outbox_relays RENAME TO outbox_member;
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
INSERT INTO outbox (position, xid, merchant_id, id, topic, key, sequence, headers, payload, created_at) OVERRIDING SYSTEM VALUE
SELECT position, xid, merchant_id, id, topic, key, sequence,
    coalesce((SELECT jsonb_agg(jsonb_build_array(headers[i], headers[i + 1]) ORDER BY i)
        FROM generate_series(1, cardinality(headers), 2) i), '[]'), payload, created_at
FROM outbox_partitioned;
SELECT setval(pg_get_serial_sequence('outbox', 'position'), greatest(last_value, 1), is_called) FROM outbox_position;
-- The shard that is furthest behind: what others are ahead of it is sent again.
INSERT INTO outbox_relays (name, done)
SELECT 'main', coalesce(done, '1:1:') FROM outbox_cursors
ORDER BY pg_snapshot_xmin(done) NULLS FIRST, pg_snapshot_xmax(done) LIMIT 1;
DROP VIEW outbox_cursors;
DROP FUNCTION outbox_extend, outbox_retire, outbox_header;
DROP TABLE outbox_partitioned, outbox_checkpoints, outbox_shards, outbox_member, outbox_dropped, outbox_partitions;
DROP SCHEMA outbox_parts;
