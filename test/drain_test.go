package test

import (
	"net/http"
	"strings"
	"syscall"
	"testing"

	"payments/client"
)

// SIGTERM while a call to the bank is under way and its client waits for the
// outcome: the call is finished and the client answered, the event streams are ended,
// and what was in hand is free for another process at once.
func TestTermDrains(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parts{})
	w.vars["PAYMENTS_PROVIDER_TIMEOUT"], w.vars["PAYMENTS_PROVIDER_HORIZON"] = "5s", "6s" // the slow capture is answered in time
	s := w.serve(nil)
	before := w.paid(s, "before", order("before", "pm_card_visa")) // the relay leads, the projector has its partitions

	followed := make(chan string, 1)
	go func() { // a stream, which would have no end of its own
		a, err := w.get(s.url+"/v1/payments/"+before.ID+"/events", w.vars["PAYMENTS_API_KEY"])
		if err != nil {
			t.Error(err)
		}
		followed <- string(a.body)
	}()
	w.fault(`{"kind": "slow", "operation": "capture", "rate": 1, "latency_ms": 1000, "seconds": 60}`)
	answered := make(chan answer, 1)
	go func() {
		a, err := w.post(s, "drained", order("drained", "pm_card_visa"), map[string]string{"Prefer": "wait=30"})
		if err != nil {
			t.Error(err)
		}
		answered <- a
	}()
	await(t, settleWithin, func() string {
		if w.count(`SELECT count(*) FROM sagas WHERE intent`) == 0 {
			return "no call to the bank is under way"
		}
		return ""
	})
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	if a := <-answered; a.status != http.StatusOK || decode[client.Payment](t, a).Status != client.PaymentStatusSucceeded {
		t.Errorf("the waiting client was answered %d %s", a.status, a.body)
	}
	if events := <-followed; strings.Count(events, "\ndata: ") != 5 || !strings.HasSuffix(events, "\n\n") {
		t.Errorf("the stream had %q", events)
	}
	w.leasesGivenBack()

	next := w.serve(nil)
	if p := w.paid(next, "after", order("after", "pm_card_visa")); p.Status != "succeeded" {
		t.Errorf("the next service: %+v", p)
	}
	w.audited()
}

// A service without the API drains as well, in the middle of a saga that goes on elsewhere.
func TestTermDrainsAWorker(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parts{})
	front := w.serve(map[string]string{"PAYMENTS_ROLES": "api"})
	back := w.serve(map[string]string{"PAYMENTS_ROLES": "saga,relay,projector"})
	if a, err := w.post(front, "held", order("held", "pm_card_timeout_lost"), nil); err != nil || a.status != http.StatusAccepted {
		t.Fatalf("%d %s %v", a.status, a.body, err)
	}
	await(t, settleWithin, func() string {
		if w.count(`SELECT count(*) FROM sagas WHERE intent`) == 0 {
			return "no call to the bank is under way"
		}
		return ""
	})
	if code := back.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	w.leasesGivenBack()
	back.start()
	if p := w.paid(front, "held", order("held", "pm_card_timeout_lost")); p.Status != "succeeded" {
		t.Errorf("after the restart: %+v", p)
	}
	w.audited()
}

// leasesGivenBack: no saga and no relay waits for a lease of a process that has ended.
func (w *world) leasesGivenBack() {
	w.t.Helper()
	if n := w.count(`SELECT count(*) FROM sagas WHERE owner IS NOT NULL AND due_at IS NOT NULL`); n > 0 {
		w.t.Errorf("%d sagas are still leased", n)
	}
	if n := w.count(`SELECT count(*) FROM outbox_relays WHERE lease_until > now()`); n > 0 {
		w.t.Errorf("%d relays are still leased", n)
	}
}
