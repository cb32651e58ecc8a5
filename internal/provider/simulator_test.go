package provider_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"payments/internal/provider"
	"payments/internal/provider/providertest"
	"payments/internal/provider/simulator"
)

// before is a provider before a real simulator at url.
type before struct {
	*provider.HTTP
	url string
}

// newSimulator makes a simulator. Nothing that a test expects an answer from
// takes as long as the timeout.
func newSimulator(t *testing.T, timeout time.Duration) (p before, fault func(body string)) {
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
	return before{newHTTP(t, srv.URL, timeout), srv.URL}, func(body string) {
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

func TestTheSimulatorKeepsTheContract(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port where nobody is
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + l.Addr().String()
	l.Close()
	providertest.Run(t, func(t *testing.T) providertest.Subject {
		t.Helper()
		p, fault := newSimulator(t, time.Minute)
		return providertest.Subject{
			Patient: p, Hasty: newHTTP(t, p.url, 300*time.Millisecond), Dead: newHTTP(t, nobody, time.Minute),
			Good: "pm_card_visa", Declined: "pm_card_insufficient_funds", DeclineCode: "insufficient_funds",
			Strike: func(s providertest.Strike, o provider.OperationType) func() {
				fault(`{"kind":"` + string(s) + `","operation":"` + string(o) + `"}`)
				return func() { fault("") }
			},
		}
	})
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
