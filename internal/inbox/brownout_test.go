package inbox_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/devstack/devtest"
	"payments/internal/inbox"
	"payments/internal/payment"
	"payments/internal/postgres"
)

// stalling is a database whose statements time out after 200 ms, and in which every
// insert of the inbox's ids and of effects takes a second while it stalls.
func stalling(t *testing.T) (pool *pgxpool.Pool, stall func(bool)) {
	t.Helper()
	db := devtest.Database(t)
	plain, err := postgres.Open(t.Context(), db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(plain.Close)
	c := plain.Config()
	c.ConnConfig.RuntimeParams["statement_timeout"] = "200ms" // 15 s in the service
	pool, err = pgxpool.NewWithConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := plain.Exec(t.Context(), `
		CREATE TABLE effects (id text);
		CREATE TABLE disk AS SELECT false AS stalls;
		CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF (SELECT stalls FROM disk) THEN PERFORM pg_sleep(1); END IF;
			RETURN NULL;
		END $$;
		CREATE TRIGGER stall BEFORE INSERT ON effects FOR EACH STATEMENT EXECUTE FUNCTION stall();
		CREATE TRIGGER stall BEFORE INSERT ON inbox_messages FOR EACH STATEMENT EXECUTE FUNCTION stall()`); err != nil {
		t.Fatal(err)
	}
	return pool, func(on bool) {
		t.Helper()
		if _, err := plain.Exec(t.Context(), `UPDATE disk SET stalls = $1`, on); err != nil {
			t.Error(err)
		}
	}
}

// The database's disk stalls for a while. No message is at fault, and no key may wait
// for a person afterwards: neither when the inbox's own statements time out, before any
// handler is called, nor when the handler's do.
func TestAStallOfTheDatabaseBlocksNoInnocentKey(t *testing.T) {
	for name, inHandler := range map[string]bool{"in the inbox's own statements": false, "in the handler's statements": true} {
		t.Run(name, func(t *testing.T) {
			pool, stall := stalling(t)
			stalls, calls := true, 0
			handle := func(ctx context.Context, tx pgx.Tx, batch []inbox.Message) error {
				calls++
				if inHandler {
					stall(stalls)
				}
				for _, m := range batch {
					if _, err := tx.Exec(ctx, `INSERT INTO effects VALUES ($1)`, m.Headers[inbox.HeaderID]); err != nil {
						return err
					}
				}
				return nil
			}
			in, err := inbox.New(pool, "c", handle, inbox.Config{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
			if err != nil {
				t.Fatal(err)
			}
			ids := payment.Generator{Now: time.Now, Random: rand.Reader}
			var batch []inbox.Message
			for n := range 10 {
				batch = append(batch, inbox.Message{Topic: "t", Offset: int64(n), Key: []byte{byte(n)}, Headers: map[string]string{inbox.HeaderID: ids.New("evt")}})
			}
			for range 5 { // five timeouts in a row: 75 s in the service
				stall(!inHandler)
				if n, err := in.Apply(t.Context(), 1, batch); n > 0 || err == nil {
					t.Fatalf("it does not stall: %d, %v", n, err)
				}
			}
			if (calls > 0) != inHandler {
				t.Errorf("the handler was called %d times during the stall", calls)
			}
			stalls = false
			stall(false)
			n, err := in.Apply(t.Context(), 1, batch)
			var deadLetters, effects int
			var reason string
			if err := pool.QueryRow(t.Context(), `
				SELECT (SELECT count(*) FROM inbox_parked), (SELECT count(*) FROM effects), coalesce((SELECT min(reason) FROM inbox_parked), '')`).
				Scan(&deadLetters, &effects, &reason); err != nil {
				t.Fatal(err)
			}
			if deadLetters > 0 {
				t.Errorf("%d dead letters, whose keys wait for a person: %s", deadLetters, reason)
			}
			if n != len(batch) || err != nil || effects != len(batch) {
				t.Errorf("after the stall %d are taken in (%v), with %d effects", n, err, effects)
			}
		})
	}
}
