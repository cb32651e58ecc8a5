-- +goose Up

-- An order's amount is the sum of its lines, as internal/payment.NewOrder has it. An
-- order is written before its lines, so it is looked at when its transaction ends. Its
-- lines come in one statement, number 0 among them, and stay as they are: whoever comes
-- later finds number 0 taken, so that nothing has to be added up again. What was written
-- before is for the audit to find.

-- +goose StatementBegin
CREATE FUNCTION refuse_order_sum() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- The row as it stands by now: it may have changed since the trigger was queued.
    IF EXISTS (
        SELECT FROM orders o WHERE o.merchant_id = NEW.merchant_id AND o.id = NEW.id AND NOT EXISTS (
            SELECT FROM order_lines l WHERE l.merchant_id = NEW.merchant_id AND l.order_id = NEW.id
            HAVING sum(l.quantity * l.unit_amount) = o.amount AND min(l.line) = 0))
    THEN
        RAISE EXCEPTION 'the amount of % is not the sum of its lines', NEW.id USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME;
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE CONSTRAINT TRIGGER orders_sum AFTER INSERT OR UPDATE OF amount ON orders DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse_order_sum();

-- +goose StatementBegin
CREATE FUNCTION refuse_late_lines() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    late text;
BEGIN
    SELECT order_id INTO late FROM added GROUP BY merchant_id, order_id HAVING min(line) > 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the lines of % come in one statement, from number 0 on', late USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME;
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER order_lines_whole AFTER INSERT ON order_lines REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_late_lines();

CREATE TRIGGER order_lines_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON order_lines
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting();

-- A message without an id that was discarded is known by its place when it comes again.
CREATE INDEX inbox_discarded_place ON inbox_discarded (parked_key, partition, "offset");

-- +goose Down
DROP INDEX inbox_discarded_place;
DROP TRIGGER order_lines_append_only ON order_lines;
DROP TRIGGER order_lines_whole ON order_lines;
DROP FUNCTION refuse_late_lines;
DROP TRIGGER orders_sum ON orders;
DROP FUNCTION refuse_order_sum;
