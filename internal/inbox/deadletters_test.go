package inbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
)

// moody fails for ids that a test names.
type moody struct{ reasons map[string]error }

func (m *moody) handle(ctx context.Context, tx pgx.Tx, msg Message) error {
	if err := m.reasons[msg.Headers[HeaderID]]; err != nil {
		return Permanent(err)
	}
	return record(ctx, tx, msg)
}

func TestBlockedKeysAreListedGroupedAndShown(t *testing.T) {
	pool := database(t)
	h := &moody{map[string]error{}}
	in := restart(t, pool, h.handle)
	var batch []Message
	for i := range 5 {
		key := string(rune('a' + i))
		h.reasons[key+"-1"] = fmt.Errorf("order ord_01jq0c8v8pf3n8t3m5x9z4k2%d%d: no row 4%d", i, i, i)
		batch = append(batch, message(int64(10*i), key, 1), message(int64(10*i+1), key, 2))
	}
	h.reasons["e-1"] = errors.New("something else\nwith more lines")
	apply(t, in, batch...)
	letters := NewDeadLetters(pool, in)
	var all []BlockedKey
	f := BlockedFilter{Consumer: "test", Limit: 2}
	for range 10 {
		page, err := letters.List(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Keys...)
		if f.After = page.Next; page.Next == "" {
			break
		}
	}
	if len(all) != 5 {
		t.Fatalf("%d keys, want 5: %+v", len(all), all)
	}
	for _, k := range all {
		if k.Messages != 2 || k.Consumer != "test" || k.Topic != "events" || k.Replays != 0 || time.Since(k.BlockedAt) > time.Minute ||
			k.Reason != h.reasons[string(k.Key)+"-1"].Error() || k.ID != blockedID("test", "events", k.Key) {
			t.Errorf("key %+v", k)
		}
	}
	groups, err := letters.Groups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(groups) != 2 || groups[0].Keys != 4 || groups[0].Messages != 8 || groups[1].Keys != 1 {
		t.Fatalf("groups %+v, want four keys of one error and one of another", groups)
	}
	page, err := letters.List(t.Context(), BlockedFilter{Fingerprint: groups[1].Fingerprint})
	if err != nil || len(page.Keys) != 1 || string(page.Keys[0].Key) != "e" {
		t.Errorf("by fingerprint %+v, %v", page, err)
	}
	key, messages, err := letters.Show(t.Context(), page.Keys[0].ID, 10)
	if err != nil || key.ID != page.Keys[0].ID {
		t.Fatalf("show: %+v, %v", key, err)
	}
	want := []DeadLetter{
		{Offset: 40, Headers: map[string]string{HeaderID: "e-1"}, Value: []byte(`{}`), Reason: "something else\nwith more lines"},
		{Offset: 41, Headers: map[string]string{HeaderID: "e-2"}, Value: []byte(`{}`), Reason: errBehind.Error()},
	}
	if diff := cmp.Diff(want, messages, cmpopts.IgnoreFields(DeadLetter{}, "StoredAt", "arrival")); diff != "" {
		t.Error(diff)
	}
	for _, after := range []string{"x", "eA", "_w"} {
		if _, err := letters.List(t.Context(), BlockedFilter{After: after}); !errors.Is(err, ErrCursor) {
			t.Errorf("cursor %q: %v", after, err)
		}
	}
	for what, err := range map[string]error{
		"show":   func() error { _, _, err := letters.Show(t.Context(), "prk_0", 1); return err }(),
		"replay": func() error { _, err := letters.Replay(t.Context(), "prk_0"); return err }(),
		"discard": func() error {
			_, err := letters.Discard(t.Context(), "prk_0", By{"key_1", "me", "why"}, nil)
			return err
		}(),
	} {
		if !errors.Is(err, ErrNotBlocked) {
			t.Errorf("%s of an unknown key: %v", what, err)
		}
	}
}

func TestAReplayStopsAtTheFirstRefusalAndKeepsTheRest(t *testing.T) {
	pool := database(t)
	h := &moody{map[string]error{"a-1": errors.New("first"), "a-3": errors.New("third")}}
	in := restart(t, pool, h.handle)
	var batch []Message
	for n := range 2*replayChunk + 5 {
		batch = append(batch, message(int64(n), "a", n+1))
	}
	apply(t, in, batch...)
	letters := NewDeadLetters(pool, in)
	id := blockedID("test", "events", []byte("a"))
	delete(h.reasons, "a-1")
	r, err := letters.Replay(t.Context(), id)
	if err != nil || r.Applied != 2 || r.Released || r.Remaining != int64(len(batch)-2) || r.Reason != "third" {
		t.Fatalf("replay %+v, %v", r, err)
	}
	same(t, "effects", effects(t, pool), "a-1", "a-2")
	key, messages, err := letters.Show(t.Context(), id, 1)
	if err != nil || key.Replays != 1 || key.Fingerprint != fingerprint("third") || messages[0].Reason != "third" {
		t.Errorf("key %+v, head %+v, %v", key, messages, err)
	}
	delete(h.reasons, "a-3")
	r, err = letters.Replay(t.Context(), id)
	if err != nil || !r.Released || r.Applied != len(batch)-2 || r.Remaining != 0 {
		t.Fatalf("replay %+v, %v", r, err)
	}
	var inOrder bool
	if err := pool.QueryRow(t.Context(), `
		SELECT count(*) = $1 AND bool_and(id = 'a-' || rank) FROM (SELECT id, row_number() OVER (ORDER BY n) AS rank FROM effects) e`,
		len(batch)).Scan(&inOrder); err != nil || !inOrder {
		t.Errorf("not each effect once and in order (%v)", err)
	}
	if _, err := letters.Replay(t.Context(), id); !errors.Is(err, ErrNotBlocked) {
		t.Errorf("a released key was replayed again: %v", err)
	}
}

// A message that arrives while its key is replayed must neither pass those that
// wait nor be left behind when the key is released.
func TestAMessageThatArrivesDuringAReplayComesAfterIt(t *testing.T) {
	pool := database(t)
	broken := true
	entered, release := make(chan struct{}), make(chan struct{})
	in := restart(t, pool, func(ctx context.Context, tx pgx.Tx, m Message) error {
		if broken {
			return Permanent(errors.New("broken"))
		}
		if m.Headers[HeaderID] == "a-2" {
			close(entered)
			<-release
		}
		return record(ctx, tx, m)
	})
	apply(t, in, message(1, "a", 1), message(2, "a", 2))
	broken = false
	done := make(chan error, 2)
	go func() {
		_, err := NewDeadLetters(pool, in).Replay(t.Context(), blockedID("test", "events", []byte("a")))
		done <- err
	}()
	<-entered
	go func() {
		_, err := in.Apply(t.Context(), 1, []Message{message(3, "a", 3)})
		done <- err
	}()
	awaitLock(t, pool)
	close(release)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	same(t, "effects", effects(t, pool), "a-1", "a-2", "a-3")
	same(t, "dead letters", deadLetters(t, pool))
}

func TestADiscardSaysWhoAndWhyAndIsNotAppliedWhenItComesAgain(t *testing.T) {
	pool := database(t)
	h := &moody{map[string]error{"a-1": errors.New("nonsense"), "b-1": errors.New("nonsense")}}
	in := restart(t, pool, h.handle)
	batch := []Message{message(1, "a", 1), message(2, "a", 2), message(3, "b", 1), message(4, "b", 2), message(5, "b", 3)}
	apply(t, in, batch...)
	letters := NewDeadLetters(pool, in)
	a, b := blockedID("test", "events", []byte("a")), blockedID("test", "events", []byte("b"))
	for _, by := range []By{
		{"", "me", "why"}, {"key_1", "", "why"}, {"key_1", "me", " "}, {"key_1", "me", "w\x00y"}, {"k\xff", "me", "why"}, {"key_1", "m\xff", "why"}, {"key_1", "m\u00eb", "why"},
	} {
		if _, err := letters.Discard(t.Context(), a, by, nil); !errors.Is(err, ErrNoReason) {
			t.Errorf("discard by %q: %v", by, err)
		}
	}
	first := int64(1)
	if n, err := letters.Discard(t.Context(), a, By{"key_1", "ada", "sent by mistake"}, &first); n != 1 || err != nil {
		t.Fatalf("discard: %d, %v", n, err)
	}
	// The answer was lost.
	if _, err := letters.Discard(t.Context(), a, By{"key_1", "ada", "sent by mistake"}, &first); !errors.Is(err, ErrNotFirst) {
		t.Errorf("the same discard again: %v", err)
	}
	same(t, "dead letters", deadLetters(t, pool), "a-2", "b-1", "b-2", "b-3")
	if r, err := letters.Replay(t.Context(), a); err != nil || !r.Released {
		t.Fatalf("replay of the rest: %+v, %v", r, err)
	}
	if n, err := letters.Discard(t.Context(), b, By{"key_1", "ada", "all of it"}, nil); n != 0 || err != nil {
		t.Fatalf("discard all: %d, %v", n, err)
	}
	same(t, "dead letters", deadLetters(t, pool))
	clear(h.reasons)
	apply(t, in, batch...)
	apply(t, in, message(6, "b", 4))
	same(t, "effects", effects(t, pool), "a-2", "b-4")
	same(t, "discarded", column(t, pool, `
		SELECT concat_ws(' ', headers->>'ce_id', discarded_by, holder, reason, error) FROM inbox_discarded ORDER BY id`),
		"a-1 key_1 ada sent by mistake nonsense", "b-1 key_1 ada all of it nonsense",
		"b-2 key_1 ada all of it "+errBehind.Error(), "b-3 key_1 ada all of it "+errBehind.Error())
	for _, sql := range []string{`DELETE FROM inbox_discarded`, `UPDATE inbox_discarded SET reason = 'x'`} {
		if _, err := pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s is allowed", sql)
		}
	}
}

func TestWhatAnotherProcessConsumesIsNotReplayedHere(t *testing.T) {
	pool := database(t)
	h := &moody{map[string]error{"a-1": errors.New("no")}}
	apply(t, restart(t, pool, h.handle), message(1, "a", 1))
	if _, err := NewDeadLetters(pool).Replay(t.Context(), blockedID("test", "events", []byte("a"))); err == nil || errors.Is(err, ErrNotBlocked) {
		t.Errorf("replay without a handler: %v", err)
	}
}

func TestFingerprintsDifferByWhatIsWrongOnly(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"gap: event evt_01jq0c8v8pf3n8t3m5x9z4k2q7 has sequence 4", "gap: event evt_01jq0c8v8pf3n8t3m5x9z4k2q8 has sequence 17", true},
		{"row 018f2f3a-0000-7000-8000-000000000001", "row 018f2f3a-0000-7000-8000-00000000abcd", true},
		{"panic at 0xc000012345\nframes", "panic at 0xc0000ffff0\nothers", true},
		{"violates a_check", "violates b_check", false},
		{strings.Repeat("x", 10), strings.Repeat("x", 11), false},
	} {
		if got := fingerprint(c.a) == fingerprint(c.b); got != c.same {
			t.Errorf("%q and %q: alike = %t", c.a, c.b, got)
		}
	}
}
