-- +goose Up

-- closed_xid was a snapshot's xmax, which is the number behind the last transaction that
-- has ended: one that was still running could have it, or a higher one. A relay that had seen all before closed_xid
-- end then took the partition for passed, and what such a transaction committed into it was never published.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_extend(parent_name text, size bigint, ahead int) RETURNS bigint
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
    -- A transaction id that is taken after `last` was read is higher than that of whoever had drawn up to it.
    IF pg_current_xact_id_if_assigned() IS NULL THEN
        UPDATE outbox_partitions SET closed_xid = pg_current_xact_id(), closed_at = clock_timestamp()
        WHERE parent = parent_name AND closed_xid IS NULL AND high <= last + 1;
    END IF;
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

-- Whoever drew a position of these did so before now.
UPDATE outbox_partitions SET closed_xid = pg_current_xact_id() WHERE closed_xid IS NOT NULL AND dropped_at IS NULL;

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION outbox_extend(parent_name text, size bigint, ahead int) RETURNS bigint
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
