package simulator

import (
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"
)

// struck sends c as the first request of its operation, sees the strike of the
// payment method, and gives the operation as a resend finds it.
func (b *bank) struck(method string, c call) operation {
	b.t.Helper()
	wantLedger := func(n int) {
		b.t.Helper()
		if got := b.byKey(c.key); len(got) != n {
			b.t.Fatalf("%s: %s: ledger has %v, want %d operations", method, c.path, got, n)
		}
	}
	replayed := ""
	switch method {
	case "pm_card_timeout_applied":
		b.held(http.MethodPost, c)
		wantLedger(1)
		replayed = "true"
	case "pm_card_timeout_lost":
		b.held(http.MethodPost, c)
		wantLedger(0)
	case "pm_card_late_applied":
		b.held(http.MethodPost, c)
		b.clock.await(b.t, 3*time.Second)
		b.clock.advance(lateLatency - 1)
		wantLedger(0)
		b.clock.advance(1)
		b.eventually("the late application", func() bool { return len(b.byKey(c.key)) == 1 })
		replayed = "true"
	case "pm_card_flaky":
		for range 2 {
			b.want(c, http.StatusInternalServerError, "provider_error")
			wantLedger(0)
		}
	case "pm_card_slow":
		answered := b.background(b.t.Context(), http.MethodPost, c)
		b.clock.await(b.t, 2*time.Second)
		wantLedger(0)
		b.clock.advance(slowLatency)
		if r := <-answered; r.status != http.StatusCreated {
			b.t.Fatalf("slow %s answered %d %s %v", c.path, r.status, r.body, r.err)
		}
		replayed = "true"
	}
	r := b.send(c)
	if r.status != http.StatusCreated || r.header.Get("Idempotent-Replayed") != replayed {
		b.t.Fatalf("%s: %s answered %d %s, replayed %q", method, c.path, r.status, r.body, r.header.Get("Idempotent-Replayed"))
	}
	wantLedger(1)
	return r.op
}

func TestEveryOperationOfAMethodIsStruckOnce(t *testing.T) {
	methods := append(slices.Collect(maps.Keys(methodStrikes)), "pm_card_visa")
	for _, method := range methods {
		t.Run(method, func(t *testing.T) {
			b := newBank(t)
			auth := b.struck(method, authorize("a", method))
			captured := b.struck(method, captureOf("c", auth.ID, 4998))
			b.struck(method, refundOf("r1", captured.ID, 1000))
			b.struck(method, refundOf("r2", captured.ID, 3998))
			other := b.struck(method, authorize("a2", method))
			voided := b.struck(method, voidOf("v", other.ID))
			if voided.Amount != 4998 || voided.Currency != "EUR" || voided.Parent != other.ID {
				t.Errorf("void is %+v", voided)
			}
			var types []string
			for _, o := range b.list(nil) {
				types = append(types, o.Type+" "+o.Status)
			}
			want := []string{"authorization succeeded", "capture succeeded", "refund succeeded", "refund succeeded", "authorization succeeded", "void succeeded"}
			if !slices.Equal(types, want) {
				t.Errorf("ledger is %q, want %q", types, want)
			}
		})
	}
}

func TestDeclines(t *testing.T) {
	b := newBank(t)
	for method, code := range map[string]string{
		"pm_card_declined":           "card_declined",
		"pm_card_insufficient_funds": "insufficient_funds",
		"pm_card_unheard_of":         "invalid_payment_method",
	} {
		declinedOp := b.want(authorize(method, method), http.StatusPaymentRequired, code)
		again := b.send(authorize(method, method))
		if again.op != declinedOp || again.status != http.StatusPaymentRequired || len(b.byKey(method)) != 1 {
			t.Errorf("%s: the resend was answered %d %+v, want %+v", method, again.status, again.op, declinedOp)
		}
		b.want(captureOf("c"+method, declinedOp.ID, 4998), http.StatusPaymentRequired, "no_such_authorization")
	}
	auth := b.want(authorize("a", "pm_card_capture_declined"), http.StatusCreated, "")
	b.want(captureOf("c", auth.ID, 4998), http.StatusPaymentRequired, "capture_declined")
	b.want(voidOf("v", auth.ID), http.StatusCreated, "")
}

func TestRulesOfTheBank(t *testing.T) {
	b := newBank(t)
	first := b.want(authorize("a1", "pm_card_visa"), http.StatusCreated, "")
	second := b.want(authorize("a2", "pm_card_visa"), http.StatusCreated, "")
	if first.ID == second.ID {
		t.Fatal("a second key must be a second hold")
	}
	const no = http.StatusPaymentRequired
	b.want(captureOf("c0", first.ID, 4999), no, "amount_too_large")
	b.want(captureOf("c1", "op_none", 1), no, "no_such_authorization")
	usd := captureOf("c2", first.ID, 1)
	usd.body = `{"reference":"pay_1","authorization":"` + first.ID + `","amount":1,"currency":"USD"}`
	b.want(usd, no, "currency_mismatch")
	captured := b.want(captureOf("c3", first.ID, 4000), http.StatusCreated, "")
	b.want(captureOf("c4", first.ID, 1), no, "already_captured")
	b.want(voidOf("v1", first.ID), no, "already_captured")
	b.want(voidOf("v2", second.ID), http.StatusCreated, "")
	b.want(voidOf("v3", second.ID), no, "already_voided")
	b.want(captureOf("c5", second.ID, 1), no, "authorization_voided")
	missing := b.want(voidOf("v4", "op_none"), no, "no_such_authorization")
	if missing.Amount != 0 || missing.Currency != "XXX" {
		t.Errorf("a void of nothing is %+v", missing)
	}
	b.want(refundOf("r1", captured.ID, 4001), no, "refund_exceeds_capture")
	b.want(refundOf("r2", captured.ID, 3000), http.StatusCreated, "")
	b.want(refundOf("r3", captured.ID, 1001), no, "refund_exceeds_capture")
	b.want(refundOf("r4", captured.ID, 1000), http.StatusCreated, "")
	b.want(refundOf("r5", captured.ID, 1), no, "refund_exceeds_capture")
	b.want(refundOf("r6", first.ID, 1), no, "no_such_capture")
}

func TestLateApplicationHonoursWhatItFinds(t *testing.T) {
	b := newBank(t)
	const method = "pm_card_late_applied"

	b.held(http.MethodPost, authorize("a", method))
	auth := b.want(authorize("a", method), http.StatusCreated, "") // a resend overtakes
	b.clock.advance(lateLatency)
	b.eventually("the late application has run", b.idle)
	if got := b.byKey("a"); len(got) != 1 || got[0].ID != auth.ID {
		t.Fatalf("ledger has %v, want %s alone", got, auth.ID)
	}

	b.held(http.MethodPost, captureOf("c", auth.ID, 4998))
	b.held(http.MethodPost, voidOf("v", auth.ID))
	b.want(voidOf("v", auth.ID), http.StatusCreated, "")
	b.clock.advance(lateLatency)
	b.eventually("the late capture", func() bool { return len(b.byKey("c")) == 1 })
	if late := b.byKey("c")[0]; late.Status != declined || late.Code != "authorization_voided" {
		t.Errorf("a capture that comes after the void is %+v", late)
	}
}

// idle tells that no late application is to come or under way.
func (b *bank) idle() bool {
	b.sim.delays.mu.Lock()
	defer b.sim.delays.mu.Unlock()
	if len(b.sim.delays.pending) > 0 {
		return false
	}
	b.sim.delays.running.Wait()
	return true
}

func TestAnExpiredAuthorizationIsNotCaptured(t *testing.T) {
	b := newBank(t)
	first := b.want(authorize("a1", "pm_card_visa"), http.StatusCreated, "")
	second := b.want(authorize("a2", "pm_card_visa"), http.StatusCreated, "")
	third := b.want(authorize("a3", "pm_card_visa"), http.StatusCreated, "")
	if want := timestamp(b.clock.Now().Add(168 * time.Hour)); first.Expires != want {
		t.Errorf("it expires at %s, want %s", first.Expires, want)
	}
	b.clock.advance(168*time.Hour - time.Microsecond)
	b.want(captureOf("c1", first.ID, 4998), http.StatusCreated, "")
	b.clock.advance(time.Microsecond)
	late := b.want(captureOf("c2", second.ID, 4998), http.StatusPaymentRequired, "authorization_expired")
	if again := b.want(captureOf("c2", second.ID, 4998), http.StatusPaymentRequired, "authorization_expired"); again != late {
		t.Errorf("the resend gave %+v, want %+v", again, late)
	}
	b.want(voidOf("v", third.ID), http.StatusCreated, "") // nothing is held after it
	b.want(captureOf("c1", first.ID, 4998), http.StatusCreated, "")
	declinedOp := b.want(authorize("d", "pm_card_declined"), http.StatusPaymentRequired, "card_declined")
	b.want(voidOf("vd", declinedOp.ID), http.StatusPaymentRequired, "no_such_authorization")
	if declinedOp.Expires != "" {
		t.Errorf("a declined authorization expires at %s", declinedOp.Expires)
	}
}
