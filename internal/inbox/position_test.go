package inbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A broker that has forgotten the group counts its generations from one again.
func TestALowerGenerationIsTakenWhenTheCoordinatorConfirmsIt(t *testing.T) {
	pool := database(t)
	before, after := restart(t, pool, record), restart(t, pool, record)
	if n, err := before.Apply(t.Context(), 57, []Message{message(1, "a", 1)}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := after.Claim(t.Context(), "events", 0, 2, nil); !errors.Is(err, ErrFenced) {
		t.Errorf("without a word from the coordinator: %v", err)
	}
	denied := errors.New("illegal generation")
	if _, err := after.Claim(t.Context(), "events", 0, 2, func(int64) error { return denied }); !errors.Is(err, ErrFenced) || !errors.Is(err, denied) {
		t.Errorf("denied: %v", err)
	}
	asked := int64(-1)
	next, err := after.Claim(t.Context(), "events", 0, 2, func(next int64) error { asked = next; return nil })
	if err != nil || next.Next != 2 || asked != 2 {
		t.Fatalf("confirmed: it begins at %d, asked about %d (%v)", next.Next, asked, err)
	}
	if n, err := before.Apply(t.Context(), 57, []Message{message(2, "a", 2)}); n != 0 || !errors.Is(err, ErrFenced) {
		t.Errorf("the generation of before applied %d (%v)", n, err)
	}
	// While it asked, another that is as true has claimed.
	_, err = before.Claim(t.Context(), "events", 0, 1, func(int64) error {
		_, err := after.Claim(t.Context(), "events", 0, 3, nil)
		return err
	})
	if !errors.Is(err, ErrFenced) {
		t.Errorf("overtaken while it asked: %v", err)
	}
	if n, err := after.Apply(t.Context(), 3, []Message{message(2, "a", 2)}); n != 1 || err != nil {
		t.Error(n, err)
	}
}

// A log that was truncated or made anew has lower offsets than the row.
func TestLowerOffsetsAreTakenInAndTheRowFollows(t *testing.T) {
	pool := database(t)
	in := restart(t, pool, record)
	apply(t, in, message(100, "a", 1))
	apply(t, in, message(3, "b", 1))
	same(t, "effects", effects(t, pool), "a-1", "b-1")
	if next, err := in.Claim(t.Context(), "events", 0, 2, nil); err != nil || next != (Offset{4, "b-1"}) {
		t.Errorf("begins at %v (%v), want 4 behind b-1", next, err)
	}
}

func TestFewMessagesAtFaultCostFewCalls(t *testing.T) {
	pool := database(t)
	calls, size := 0, 0
	bad := []string{"k-77", "k-300"}
	in := restart(t, pool, record)
	handle := in.handle
	in.handle = func(ctx context.Context, tx pgx.Tx, batch []Message) error {
		calls++
		size += len(batch)
		for _, m := range batch {
			if slices.Contains(bad, m.Headers[HeaderID]) {
				return Permanent(errors.New("bad"))
			}
		}
		return handle(ctx, tx, batch)
	}
	var batch []Message
	for n := range 500 {
		m := message(int64(n), "k", n)
		m.Key = fmt.Appendf(nil, "k%d", n)
		batch = append(batch, m)
	}
	apply(t, in, batch...)
	same(t, "dead letters", deadLetters(t, pool), bad...)
	if got := effects(t, pool); len(got) != 498 {
		t.Errorf("%d effects", len(got))
	}
	if calls > 40 || size > 3000 {
		t.Errorf("%d calls with %d messages for 500 of which two are bad", calls, size)
	}
}

// A constraint that is checked at the commit leaves no message to blame: they are
// tried one by one.
func TestACommitThatIsRefusedIsTakenApart(t *testing.T) {
	pool := database(t)
	in := restart(t, pool, func(ctx context.Context, tx pgx.Tx, m Message) error {
		if m.Headers[HeaderID] == "b-1" {
			if _, err := tx.Exec(ctx, `INSERT INTO late (id) VALUES (1), (1)`); err != nil {
				return err
			}
		}
		return record(ctx, tx, m)
	}, func(c *Config) { c.MaxAttempts = 3 })
	batch := []Message{message(1, "a", 1), message(2, "b", 1), message(3, "b", 2), message(4, "c", 1)}
	for tries := 0; len(batch) > 0; tries++ {
		n, err := in.Apply(t.Context(), 1, batch)
		if batch = batch[n:]; err != nil && !strings.Contains(err.Error(), "23505") || tries > 5 {
			t.Fatalf("try %d: %v", tries, err)
		}
	}
	same(t, "effects", effects(t, pool), "a-1", "c-1")
	same(t, "dead letters", deadLetters(t, pool), "b-1", "b-2")
	if why := column(t, pool, `SELECT reason FROM inbox_parked ORDER BY "offset"`)[0]; !strings.Contains(why, "23505") {
		t.Errorf("reason %q", why)
	}
}

// Whatever the broker does, each effect happens once and in its key's order.
func TestEachEffectOnceAndInOrderWhateverIsDelivered(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 5))
			pool := database(t)
			var topic []Message
			sequence := map[string]int{}
			for offset := range int64(80) {
				key := string(rune('a' + r.IntN(6)))
				if offset > 0 && r.IntN(8) == 0 { // published twice by the relay
					again := topic[r.IntN(len(topic))]
					again.Offset = offset
					topic = append(topic, again)
					continue
				}
				sequence[key]++
				topic = append(topic, message(offset, key, sequence[key]))
			}
			fixed := false
			handle := func(ctx context.Context, tx pgx.Tx, m Message) error {
				if err := record(ctx, tx, m); err != nil || fixed {
					return err
				}
				switch id := m.Headers[HeaderID]; {
				case id == "a-3" || id == "c-1" || id == "d-5":
					return Permanent(errors.New("poison"))
				case r.IntN(10) == 0:
					return errors.New("weather")
				case r.IntN(12) == 0:
					return &pgconn.PgError{Code: "40001", Message: "serialize"}
				}
				return nil
			}
			generation := 1
			in := restart(t, pool, handle)
			letters := NewDeadLetters(pool, in)
			next := 0
			for range 120 {
				switch r.IntN(10) {
				case 0: // another process, perhaps set back
					generation++
					in = restart(t, pool, handle)
					letters = NewDeadLetters(pool, in)
					stored, err := in.Claim(t.Context(), "events", 0, generation, nil)
					if err != nil {
						t.Fatal(err)
					}
					next = r.IntN(max(int(stored.Next), 0) + 1)
				case 1:
					if _, err := letters.ReplayAll(t.Context(), BlockedFilter{}); err != nil && !abandoned(t.Context(), err) {
						t.Fatal(err)
					}
				default:
					n, err := in.Apply(t.Context(), generation, topic[next:min(next+1+r.IntN(20), len(topic))])
					if errors.Is(err, ErrFenced) {
						t.Fatal(err)
					}
					next += n
				}
			}
			fixed = true
			applyAs(t, in, generation, topic[next:])
			if all, err := letters.ReplayAll(t.Context(), BlockedFilter{}); err != nil {
				t.Fatalf("%+v, %v", all, err)
			}
			applyAs(t, in, generation, topic)
			same(t, "dead letters", deadLetters(t, pool))
			got := map[string]int{}
			for _, id := range effects(t, pool) {
				key, n, _ := strings.Cut(id, "-")
				if got[key]++; fmt.Sprint(got[key]) != n {
					t.Fatalf("%s came as the effect number %d of its key", id, got[key])
				}
			}
			for key, want := range sequence {
				if got[key] != want {
					t.Errorf("key %s has %d effects of %d", key, got[key], want)
				}
			}
		})
	}
}

func applyAs(t *testing.T, in *Inbox, generation int, batch []Message) {
	t.Helper()
	if n, err := in.Apply(t.Context(), generation, batch); n != len(batch) || err != nil {
		t.Fatalf("Apply: %d of %d, %v", n, len(batch), err)
	}
}
