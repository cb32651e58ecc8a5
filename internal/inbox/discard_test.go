package inbox

import (
	"testing"
	"time"
)

// The topic is read again from its beginning, or made anew under its name.
func TestADiscardedMessageThatNoIDTellsOfStaysDiscarded(t *testing.T) {
	pool := database(t)
	in := restart(t, pool, record)
	nameless := func(offset int64, value string) Message {
		m := message(offset, "a", 0)
		m.Headers, m.Value = map[string]string{}, []byte(value)
		return m
	}
	now := time.Now()
	old := dated(4, now.AddDate(0, 0, -10), "b", 1)
	if err := Maintain(t.Context(), pool, now, 5*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	empty := nameless(2, "")
	empty.Value = nil
	batch := []Message{nameless(1, "x"), empty, message(3, "a", 1), old, message(5, "b", 2)}
	apply(t, in, batch...)
	letters := NewDeadLetters(pool, in)
	discard := func(key string, offset int64) {
		t.Helper()
		if _, err := letters.Discard(t.Context(), blockedID("test", "events", []byte(key)), By{Operator: "key_1", Holder: "ada", Reason: "of nobody"}, &offset); err != nil {
			t.Fatal(err)
		}
	}
	discard("a", 1)
	discard("a", 2)
	discard("b", 4)
	apply(t, in, batch...) // while what came behind them waits
	same(t, "dead letters", deadLetters(t, pool), "a-1", "b-2")
	for _, key := range []string{"a", "b"} {
		if r, err := letters.Replay(t.Context(), blockedID("test", "events", []byte(key))); err != nil || !r.Released {
			t.Fatal(r, err)
		}
	}
	apply(t, in, batch...)
	apply(t, in, message(6, "a", 2))
	same(t, "dead letters", deadLetters(t, pool))
	same(t, "effects", effects(t, pool), "a-1", "b-2", "a-2")
	apply(t, in, nameless(1, "y"), message(6, "a", 3))
	same(t, "dead letters", deadLetters(t, pool), "", "a-3")
}
