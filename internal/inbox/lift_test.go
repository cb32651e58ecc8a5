package inbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/devstack/devtest"
	"payments/internal/inbox"
	"payments/internal/postgres"
)

// scan is what a warehouse's gate says of a parcel.
type scan struct {
	Parcel string `json:"parcel"`
	Shelf  string `json:"shelf"`
}

// move is the warehouse's handler: one statement for a batch, of which the last
// scan of a parcel stands.
func move(ctx context.Context, tx pgx.Tx, batch []inbox.Message) error {
	where := map[string]string{}
	for _, m := range batch {
		var s scan
		if err := json.Unmarshal(m.Value, &s); err != nil {
			return inbox.Permanent(fmt.Errorf("read scan: %w", err))
		}
		where[s.Parcel] = s.Shelf
	}
	var parcels, shelves []string
	for parcel, shelf := range where {
		parcels, shelves = append(parcels, parcel), append(shelves, shelf)
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO parcels AS p (parcel, shelf, moves) SELECT parcel, shelf, 1 FROM unnest($1::text[], $2::text[]) AS s (parcel, shelf)
		ON CONFLICT (parcel) DO UPDATE SET shelf = excluded.shelf, moves = p.moves + 1`, parcels, shelves)
	return err
}

func gate(offset int64, parcel, value string) inbox.Message {
	return inbox.Message{
		Topic: "gates", Offset: offset, Key: []byte(parcel), Value: []byte(value),
		Headers: map[string]string{inbox.HeaderID: fmt.Sprint("scan-", offset)},
	}
}

// The inbox in a warehouse's service: its tables, a handler, and no payment.
func TestAnotherServiceOfAnotherDomain(t *testing.T) {
	ctx := t.Context()
	db := devtest.Database(t)
	owner, err := pgx.Connect(ctx, db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(ctx)
	if _, err := owner.Exec(ctx, `
		DO $$ DECLARE name text; BEGIN
			FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE 'inbox%' LOOP
				EXECUTE format('DROP TABLE IF EXISTS %I CASCADE', name);
			END LOOP;
		END $$;
		CREATE TABLE parcels (parcel text PRIMARY KEY, shelf text NOT NULL CHECK (shelf <> ''), moves int NOT NULL);
		GRANT ALL ON parcels TO PUBLIC`); err != nil {
		t.Fatal(err)
	}
	pool, err := postgres.Open(ctx, db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()

	in, err := inbox.New(pool, "parcels", move, inbox.Config{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	if err := inbox.Maintain(ctx, pool, time.Now(), 30*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	const generation = 1
	next, err := in.Claim(ctx, "gates", 0, generation, nil)
	if err != nil || next.Next != -1 {
		t.Fatalf("a new consumer begins at %d (%v)", next.Next, err)
	}
	batch := []inbox.Message{
		gate(0, "red", `{"parcel": "red", "shelf": "A1"}`), gate(1, "blue", `{"parcel": "blue", "shelf": "A2"}`),
		gate(2, "red", `not JSON`), gate(3, "red", `{"parcel": "red", "shelf": "B1"}`), gate(4, "green", `{"parcel": "green", "shelf": "C1"}`),
	}
	for range 2 { // the second is a redelivery
		if taken, err := in.Apply(ctx, generation, batch); taken != len(batch) || err != nil {
			t.Fatalf("Apply: %d, %v", taken, err)
		}
	}
	says := func(what, want string) {
		t.Helper()
		var got string
		if err := pool.QueryRow(ctx, `SELECT string_agg(concat_ws(' ', parcel, shelf, moves), ', ' ORDER BY parcel) FROM parcels`).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	says("the red parcel waits, the others moved", "blue A2 1, green C1 1, red A1 1")
	if err := in.Measure(ctx); err != nil {
		t.Error(err)
	}

	letters := inbox.NewDeadLetters(pool, in)
	page, err := letters.List(ctx, inbox.BlockedFilter{})
	if err != nil || len(page.Keys) != 1 || page.Keys[0].Messages != 2 {
		t.Fatalf("dead letters: %+v, %v", page, err)
	}
	id := page.Keys[0].ID
	_, waiting, err := letters.Show(ctx, id, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := letters.Discard(ctx, id, inbox.By{Operator: "gate 1", Holder: "gatekeeper", Reason: "the gate was wet"}, &waiting[0].Offset); err != nil {
		t.Fatal(err)
	}
	if r, err := letters.Replay(ctx, id); err != nil || !r.Released {
		t.Fatalf("replay: %+v, %v", r, err)
	}
	says("after the replay", "blue A2 1, green C1 1, red B1 2")
	if _, err := in.Apply(ctx, generation-1, batch); !errors.Is(err, inbox.ErrFenced) {
		t.Errorf("a process of before: %v", err)
	}
}
