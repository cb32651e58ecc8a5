package outbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/outbox"
)

// library lends books: another domain with its own aggregate, a copy of a book.
type library struct{ pool *pgxpool.Pool }

// lend changes the copy and tells of it, both or neither. The UPDATE locks the
// copy's row and draws its sequence.
func (l library) lend(ctx context.Context, copyID, reader string) error {
	return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		var sequence int64
		if err := tx.QueryRow(ctx, `
			UPDATE copies SET reader = $2, sequence = sequence + 1 WHERE id = $1 AND reader IS NULL RETURNING sequence`,
			copyID, reader).Scan(&sequence); err != nil {
			return fmt.Errorf("copy %s is not there: %w", copyID, err)
		}
		return outbox.Append(ctx, tx, outbox.Message{
			MerchantID: "city-library", ID: fmt.Sprintf("%s/%d", copyID, sequence), Topic: "loans", Key: copyID, Sequence: sequence,
			Headers: []outbox.Header{{Key: "type", Value: "copy.lent"}}, Payload: []byte(reader),
		})
	})
}

// display is where the library's messages go: a Publisher need not be a broker.
type display struct{ lines []string }

func (d *display) Publish(_ context.Context, msgs []outbox.Message) error {
	for _, m := range msgs {
		d.lines = append(d.lines, fmt.Sprintf("%s %s: %s", m.Headers[0].Value, m.ID, m.Payload))
	}
	return nil
}

func TestALibraryTellsWhatItLends(t *testing.T) {
	pool, owner := database(t)
	execute(t, owner, `
		CREATE TABLE copies (id text PRIMARY KEY, reader text, sequence bigint NOT NULL DEFAULT 0);
		INSERT INTO copies (id) VALUES ('dune-1'), ('dune-2');
		GRANT ALL ON copies TO PUBLIC`)
	l, d := library{pool}, &display{}
	for _, reader := range []string{"ada", "grace"} {
		err := l.lend(t.Context(), "dune-1", reader)
		if (err == nil) != (reader == "ada") {
			t.Errorf("lending dune-1 to %s: %v", reader, err)
		}
	}
	if err := l.lend(t.Context(), "dune-2", "grace"); err != nil {
		t.Fatal(err)
	}
	relay, err := outbox.NewRelay(pool, d, outbox.RelayConfig{Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for again := true; again; {
		if again, err = relay.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := relay.Release(t.Context()); err != nil { // and what is under way is out
		t.Fatal(err)
	}
	same(t, "the display says", d.lines, "copy.lent dune-1/1: ada", "copy.lent dune-2/1: grace")
}
