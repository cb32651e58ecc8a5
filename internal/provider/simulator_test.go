package provider_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"payments/internal/provider"
	"payments/internal/provider/simulator"
)

// newSimulator is a provider before a real simulator. Nothing that a test
// expects an answer from takes as long as the timeout.
func newSimulator(t *testing.T, timeout time.Duration) (p *provider.HTTP, fault func(body string)) {
	t.Helper()
	sim, err := simulator.Open(filepath.Join(t.TempDir(), "ledger.db"), simulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(sim.Handler())
	t.Cleanup(func() {
		if err := sim.Close(); err != nil {
			t.Error(err)
		}
		srv.Close()
	})
	return newHTTP(t, srv.URL, timeout), func(body string) {
		t.Helper()
		method := http.MethodPost
		if body == "" {
			method = http.MethodDelete
		}
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+"/v1/faults", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			t.Fatalf("fault answered %d", resp.StatusCode)
		}
	}
}

func newHTTP(t *testing.T, url string, timeout time.Duration) *provider.HTTP {
	t.Helper()
	p, err := provider.NewHTTP(url, provider.HTTPConfig{Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func authorization(key, method string) provider.Operation {
	return provider.Operation{Key: key, Reference: "pay_1", Type: provider.Authorization, Amount: 4998, Currency: "EUR", PaymentMethod: method}
}

func under(parent provider.Result, op provider.OperationType, key string, amount int64) provider.Operation {
	return provider.Operation{Key: key, Reference: "pay_1", Type: op, Amount: amount, Currency: "EUR", Parent: parent.OperationID}
}

func want(t *testing.T, what string, got provider.Result, outcome provider.Outcome, code string, inFlight bool) provider.Result {
	t.Helper()
	if got.Outcome != outcome || got.Code != code || got.InFlight != inFlight ||
		(got.Err != nil) != (outcome == provider.Unknown) ||
		(got.OperationID != "") != (outcome == provider.Succeeded || outcome == provider.Rejected) {
		t.Fatalf("%s: %+v, want %s %q, in flight %t", what, got, outcome, code, inFlight)
	}
	return got
}

func TestOperationsAgainstTheSimulator(t *testing.T) {
	p, _ := newSimulator(t, time.Minute)
	ctx := t.Context()

	auth := authorization("a", "pm_card_visa")
	want(t, "lookup before", p.Lookup(ctx, auth), provider.NotFound, "", false)
	held := want(t, "authorize", p.Execute(ctx, auth), provider.Succeeded, "", false)
	if again := p.Execute(ctx, auth); again != held {
		t.Errorf("the resend gave %+v, want %+v", again, held)
	}
	if found := p.Lookup(ctx, auth); found != held {
		t.Errorf("the lookup gave %+v, want %+v", found, held)
	}
	taken := want(t, "capture", p.Execute(ctx, under(held, provider.Capture, "c", 4000)), provider.Succeeded, "", false)
	want(t, "void after capture", p.Execute(ctx, under(held, provider.Void, "v", 4998)), provider.Rejected, "already_captured", false)
	want(t, "refund", p.Execute(ctx, under(taken, provider.Refund, "r", 4000)), provider.Succeeded, "", false)
	want(t, "refund too much", p.Execute(ctx, under(taken, provider.Refund, "r2", 1)), provider.Rejected, "refund_exceeds_capture", false)
	want(t, "lookup of another type", p.Lookup(ctx, under(held, provider.Capture, "a", 1)), provider.NotFound, "", false)

	refused := want(t, "declined", p.Execute(ctx, authorization("d", "pm_card_declined")), provider.Rejected, "card_declined", false)
	if found := p.Lookup(ctx, authorization("d", "pm_card_declined")); found != refused || found.Message == "" {
		t.Errorf("the lookup gave %+v, want %+v", found, refused)
	}

	second := want(t, "authorize", p.Execute(ctx, authorization("a2", "pm_card_visa")), provider.Succeeded, "", false)
	want(t, "void", p.Execute(ctx, under(second, provider.Void, "v2", 0)), provider.Succeeded, "", false)
	want(t, "void of nothing", p.Execute(ctx, under(provider.Result{OperationID: "op_none"}, provider.Void, "v3", 4998)), provider.Rejected, "no_such_authorization", false)

	reused := authorization("a", "pm_card_visa")
	reused.Amount++
	want(t, "key reused", p.Execute(ctx, reused), provider.Unknown, "", false)
	want(t, "lookup of another amount", p.Lookup(ctx, reused), provider.Unknown, "", false)
}

func TestUncertaintyAgainstTheSimulator(t *testing.T) {
	patient, fault := newSimulator(t, time.Minute)
	ctx := t.Context()

	flaky := authorization("flaky", "pm_card_flaky")
	for range 2 {
		want(t, "flaky", patient.Execute(ctx, flaky), provider.Unknown, "", false)
	}
	want(t, "flaky at last", patient.Execute(ctx, flaky), provider.Succeeded, "", false)

	fault(`{"kind":"outage"}`)
	want(t, "outage", patient.Execute(ctx, authorization("o", "pm_card_visa")), provider.Unknown, "", true)
	want(t, "lookup in an outage", patient.Lookup(ctx, authorization("o", "pm_card_visa")), provider.Unknown, "", false)
	fault("")
	want(t, "lookup after the outage", patient.Lookup(ctx, authorization("o", "pm_card_visa")), provider.NotFound, "", false)

	// A held request is never answered, so that any timeout will do.
	hasty, _ := newSimulator(t, 300*time.Millisecond)
	for method, found := range map[string]provider.Outcome{
		"pm_card_timeout_applied": provider.Succeeded,
		"pm_card_timeout_lost":    provider.NotFound,
		"pm_card_late_applied":    provider.NotFound,
		"pm_card_slow":            provider.NotFound,
	} {
		op := authorization(method, method)
		want(t, method, hasty.Execute(ctx, op), provider.Unknown, "", true)
		eventually(t, func() bool { return hasty.Lookup(ctx, op).Outcome == found })
	}
}

// eventually polls, for a lookup may fail on a busy machine as well.
func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for deadline := time.After(20 * time.Second); !condition(); {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatal("it did not happen")
		}
	}
}
