package api

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"payments/internal/payment"
)

func testSlots(t *testing.T, l HeldLimits) *slots {
	t.Helper()
	s, err := newSlots(l, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// takes asks for a slot until it is refused, and tells how many were given.
func (s *slots) takes(t *testing.T, kind heldKind, who string) (n int) {
	t.Helper()
	for ; n < 10_000; n++ {
		if _, err := s.take(kind, who); err != nil {
			if e, ok := errors.AsType[*payment.Error](err); !ok || e.Code != codeTooManyHeld {
				t.Fatalf("refused with %v", err)
			}
			return n
		}
	}
	t.Fatal("there is no bound")
	return n
}

func TestSlots_OneMerchantHasItsOwnBound(t *testing.T) {
	s := testSlots(t, HeldLimits{Waits: 100, WaitsOfMerchant: 7, Streams: 100, StreamsOfMerchant: 3})
	if n := s.takes(t, heldWait, "a"); n != 7 {
		t.Errorf("%d waits, want 7", n)
	}
	if n := s.takes(t, heldStream, "a"); n != 3 {
		t.Errorf("%d streams beside the waits, want 3", n)
	}
	if got := testutil.ToFloat64(s.held.WithLabelValues("wait")); got != 7 {
		t.Errorf("the gauge says %v", got)
	}
	if got := testutil.ToFloat64(s.refused.WithLabelValues("wait", boundMerchant)); got != 1 {
		t.Errorf("%v refusals are counted", got)
	}
}

func TestSlots_ReleaseGivesTheSlotBackOnce(t *testing.T) {
	s := testSlots(t, HeldLimits{Exports: 10, ExportsOfMerchant: 1})
	release, err := s.take(heldExport, "a")
	if err != nil {
		t.Fatal(err)
	}
	if n := s.takes(t, heldExport, "a"); n != 0 {
		t.Errorf("%d more, want none", n)
	}
	release()
	release()
	if n := s.takes(t, heldExport, "a"); n != 1 {
		t.Errorf("%d after one was given back, want 1", n)
	}
	if len(s.of) != 1 || s.taken[heldExport] != 1 {
		t.Errorf("kept: %v %v", s.of, s.taken)
	}
}

// However many merchants come, each at its limit, the next one gets as much as each of them.
func TestSlots_TheNextMerchantFindsItsShare(t *testing.T) {
	for busy := range 9 {
		s := testSlots(t, HeldLimits{Waits: 1000, WaitsOfMerchant: 1000})
		holds := make([]int, busy)
		for given := true; given; { // all at once, as if they raced
			given = false
			for i := range holds {
				if _, err := s.take(heldWait, string(rune('a'+i))); err == nil {
					holds[i]++
					given = true
				}
			}
		}
		free := 1000 - s.taken[heldWait]
		share := 1000 / (busy + 1)
		if free < share-1 {
			t.Errorf("%d busy merchants leave %d of 1000, want %d", busy, free, share)
		}
		for i, n := range holds {
			if n < share-1 || n > share+1 {
				t.Errorf("merchant %d of %d holds %d, want %d", i, busy, n, share)
			}
		}
		if n := s.takes(t, heldWait, "next"); n < free/2 {
			t.Errorf("the merchant after %d busy ones gets %d of %d", busy, n, free)
		}
		if busy > 0 && testutil.ToFloat64(s.refused.WithLabelValues("wait", boundProcess)) == 0 {
			t.Error("no refusal is counted for the process")
		}
	}
}

func TestSlots_NegativeLimitIsRefused(t *testing.T) {
	for _, l := range []HeldLimits{{Waits: -1}, {WaitsOfMerchant: -1}, {Streams: -1}, {ExportsOfMerchant: -1}} {
		if _, err := newSlots(l, prometheus.NewRegistry()); err == nil {
			t.Errorf("%+v is accepted", l)
		}
	}
}
