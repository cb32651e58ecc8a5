-- +goose Up

-- claim_at is the key by which a saga that may be claimed is found, and begun says which of two
-- queues it waits in. Neither changes while a worker holds the saga: a save changes due_at (the
-- end of the lease), which no index has. So saves and claims are HOT updates.
--
--   nobody holds the saga   claim_at is due_at, or the time of this change if that is later:
--                           no saga enters the index behind a claim that has passed
--   a worker holds it       claim_at stays; it is never after due_at
--   ended, parked, paused   claim_at is NULL
--
-- A trigger keeps it. So a program of the version before, which does not know the column, can
-- run at the same time.
SET LOCAL lock_timeout = '5s';
ALTER TABLE sagas ADD COLUMN claim_at timestamptz, ADD COLUMN begun boolean NOT NULL DEFAULT false;

-- Room on each page for the next versions of its rows.
ALTER TABLE sagas SET (fillfactor = 50);

-- +goose StatementBegin
CREATE FUNCTION keep_saga_claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.claim_at := CASE WHEN NEW.due_at IS NULL OR NEW.paused_at IS NOT NULL THEN NULL
        WHEN NEW.owner IS NULL THEN greatest(NEW.due_at, clock_timestamp())
        ELSE least(NEW.claim_at, NEW.due_at) END;
    NEW.begun := NEW.attempts > 0;
    RETURN NEW;
END $$;
-- +goose StatementEnd

CREATE TRIGGER sagas_claim BEFORE INSERT OR UPDATE ON sagas FOR EACH ROW
    WHEN (NEW.claim_at IS DISTINCT FROM
        CASE WHEN NEW.due_at IS NULL OR NEW.paused_at IS NOT NULL THEN NULL
            WHEN NEW.owner IS NULL THEN NEW.due_at
            ELSE least(NEW.claim_at, NEW.due_at) END)
    EXECUTE FUNCTION keep_saga_claim();

-- +goose Down
SET LOCAL lock_timeout = '5s';
DROP TRIGGER sagas_claim ON sagas;
DROP FUNCTION keep_saga_claim;
ALTER TABLE sagas DROP COLUMN claim_at, DROP COLUMN begun, SET (fillfactor = 80);
