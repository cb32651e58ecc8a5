package inbox

import (
	"errors"
	"testing"
)

// The topic was made anew under its name while a key was blocked, and a later message
// of the key comes at the offset at which an earlier one is a dead letter.
func TestAMessageOfANewLogIsNotTakenForADeadLetterOfTheOld(t *testing.T) {
	pool := database(t)
	h := &moody{map[string]error{"a-1": errors.New("no")}}
	in := restart(t, pool, h.handle)
	apply(t, in, message(3, "a", 1))
	same(t, "dead letters", deadLetters(t, pool), "a-1")
	if _, err := in.Claim(t.Context(), "events", 0, 2, nil); err != nil {
		t.Fatal(err)
	}
	if n, err := in.Apply(t.Context(), 2, []Message{message(2, "b", 1), message(3, "a", 2)}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	delete(h.reasons, "a-1")
	if _, err := NewDeadLetters(pool, in).Replay(t.Context(), blockedID("test", "events", []byte("a"))); err != nil {
		t.Fatal(err)
	}
	same(t, "effects", effects(t, pool), "b-1", "a-1", "a-2")
}

// The same with a lower offset.
func TestAReplayOverTwoLogsKeepsTheOrderInWhichTheyCame(t *testing.T) {
	pool := database(t)
	h := &moody{map[string]error{"a-1": errors.New("no")}}
	in := restart(t, pool, h.handle)
	apply(t, in, message(30, "a", 1))
	if _, err := in.Claim(t.Context(), "events", 0, 2, nil); err != nil {
		t.Fatal(err)
	}
	if n, err := in.Apply(t.Context(), 2, []Message{message(3, "a", 2)}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	delete(h.reasons, "a-1")
	if _, err := NewDeadLetters(pool, in).Replay(t.Context(), blockedID("test", "events", []byte("a"))); err != nil {
		t.Fatal(err)
	}
	same(t, "effects", effects(t, pool), "a-1", "a-2")
}
