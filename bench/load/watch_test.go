package load

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestEveryWatchedPaymentHasItsTurn(t *testing.T) {
	w := &Watcher{}
	var done []string
	for n := range asked + 10 {
		id := fmt.Sprint("pay_", n)
		w.Watch("mer_1", id, func(time.Time, string) { done = append(done, id) })
	}
	_, first := w.batch()
	if len(first) != asked || first[0] != "pay_0" {
		t.Fatalf("first %d, from %s", len(first), first[0])
	}
	// The cursor stays where it was among those that are left.
	removed := w.remove(map[string]string{"pay_0": "succeeded", "pay_5": "failed", fmt.Sprint("pay_", asked+1): "succeeded"})
	if len(removed) != 3 || w.Unfinished() != asked+7 {
		t.Fatalf("removed %d, left %d", len(removed), w.Unfinished())
	}
	_, second := w.batch()
	if len(second) != asked || second[0] != fmt.Sprint("pay_", asked) || second[9] != "pay_1" || slices.Contains(second, fmt.Sprint("pay_", asked+1)) {
		t.Errorf("second: %v", second)
	}
	for _, r := range removed {
		r.done(time.Time{}, "")
	}
	if !slices.Equal(done, []string{"pay_0", "pay_5", fmt.Sprint("pay_", asked+1)}) {
		t.Errorf("done: %v", done)
	}
}

func TestNewPaymentsDoNotHideOldOnes(t *testing.T) {
	w := &Watcher{}
	for n := range 5 {
		w.Watch("mer_1", fmt.Sprint("pay_", n), nil)
		if _, got := w.batch(); len(got) != n+1 || !slices.Contains(got, "pay_0") {
			t.Errorf("with %d: %v", n+1, got)
		}
	}
}

func TestAnAnswerIsAcceptedShedOrNeither(t *testing.T) {
	for status, want := range map[int][2]bool{200: {true, false}, 202: {true, false}, 503: {false, true}, 429: {false, true}, 422: {false, false}} {
		a := Answer{Status: status}
		if got := [2]bool{a.Accepted(), a.Shed()}; got != want {
			t.Errorf("%d: accepted and shed %v", status, got)
		}
	}
}
