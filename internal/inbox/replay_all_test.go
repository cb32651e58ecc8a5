package inbox

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// A rebuild that was killed leaves the dead letters of its own consumer (payment_view_next),
// until the next one. Whoever replays all then gets an error at that key, and those
// behind it are not replayed, however often it is asked for.
func TestAReplayOfAllPassesAnotherConsumersKeyBy(t *testing.T) {
	pool := database(t)
	fail := true
	handle := each(func(ctx context.Context, tx pgx.Tx, m Message) error {
		if fail {
			return Permanent(errors.New("no"))
		}
		return record(ctx, tx, m)
	})
	inboxOf := func(consumer string) *Inbox {
		in, err := New(pool, consumer, handle, Config{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	apply(t, inboxOf("test_next"), message(1, "a", 1))
	live := inboxOf("test")
	apply(t, live, message(1, "a", 1), message(2, "b", 1))
	fail = false
	all, err := NewDeadLetters(pool, live).ReplayAll(t.Context(), BlockedFilter{})
	if err != nil || len(all) != 3 || len(slices.DeleteFunc(all, func(r Replay) bool { return r.Released })) != 1 {
		t.Errorf("replayed %+v, %v", all, err)
	}
	got := effects(t, pool)
	slices.Sort(got) // keys blocked at one time are replayed in any order
	same(t, "effects", got, "a-1", "b-1")
}
