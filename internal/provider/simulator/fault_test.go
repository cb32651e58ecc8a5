package simulator

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// operations under fault, each on state of its own.
func (b *bank) calls(t *testing.T) map[string]call {
	t.Helper()
	a1 := b.want(authorize("seed1", "pm_card_visa"), http.StatusCreated, "")
	a2 := b.want(authorize("seed2", "pm_card_visa"), http.StatusCreated, "")
	a3 := b.want(authorize("seed3", "pm_card_visa"), http.StatusCreated, "")
	c3 := b.want(captureOf("seed4", a3.ID, 4998), http.StatusCreated, "")
	return map[string]call{
		authorization: authorize("k-authorization", "pm_card_visa"),
		capture:       captureOf("k-capture", a1.ID, 4998),
		void:          voidOf("k-void", a2.ID),
		refund:        refundOf("k-refund", c3.ID, 4998),
	}
}

func (b *bank) clearFaults() {
	b.t.Helper()
	if r := b.do(b.t.Context(), http.MethodDelete, "/v1/faults", "", ""); r.status != http.StatusNoContent {
		b.t.Fatalf("clear: %d %v", r.status, r.err)
	}
}

// inLedger looks past the faults, which may strike lookups.
func (b *bank) inLedger(key string) int {
	b.t.Helper()
	found, _, _, err := b.sim.ledger.page(filter{key: key}, 0, 1<<62)
	if err != nil {
		b.t.Fatal(err)
	}
	return len(found)
}

func TestEveryFaultStrikesEveryRequest(t *testing.T) {
	for _, kind := range []string{outage, serverError, timeoutApplied, timeoutLost, lateApplied, slow} {
		t.Run(kind, func(t *testing.T) {
			b := newBank(t)
			for operationType, c := range b.calls(t) {
				b.fault(`{"kind":"` + kind + `","operation":"` + operationType + `","latency_ms":500}`)
				if operationType != authorization { // no other operation is struck
					b.want(authorize("not"+c.key, "pm_card_visa"), http.StatusCreated, "")
				}
				b.list(nil)
				for resend := range 2 { // resends are struck too
					b.strikeByFault(kind, c, resend)
				}
				b.clearFaults()
				b.want(c, http.StatusCreated, "")
				if n := b.inLedger(c.key); n != 1 {
					t.Errorf("%s: %d operations under one key", operationType, n)
				}
				if n := testutil.ToFloat64(b.sim.strikes.WithLabelValues(operationType, kind)); n != 2 {
					t.Errorf("%s: %v strikes counted, want 2", operationType, n)
				}
			}
			b.fault(`{"kind":"` + kind + `","latency_ms":500}`)
			b.strikeByFault(kind, authorize("any", "pm_card_visa"), 0)
			b.lookupUnderFault(kind)
		})
	}
}

func (b *bank) strikeByFault(kind string, c call, resend int) {
	b.t.Helper()
	want := map[string]int{outage: 0, serverError: 0, timeoutApplied: 1, timeoutLost: 0, lateApplied: 1, slow: 1}[kind]
	switch kind {
	case outage:
		if r := b.do(b.t.Context(), http.MethodPost, c.path, c.key, c.body); r.err == nil {
			b.t.Fatalf("outage answered %d", r.status)
		}
	case serverError:
		b.want(c, http.StatusInternalServerError, "provider_error")
	case timeoutApplied, timeoutLost:
		b.held(http.MethodPost, c)
	case lateApplied:
		b.held(http.MethodPost, c)
		if n := b.inLedger(c.key); n != resend {
			b.t.Fatalf("%d operations before the latency has passed, want %d", n, resend)
		}
		b.clock.await(b.t, 500*time.Millisecond)
		b.clock.advance(500 * time.Millisecond)
		b.eventually("the late application has run", b.idle)
	case slow:
		answered := b.background(b.t.Context(), http.MethodPost, c)
		b.clock.await(b.t, 500*time.Millisecond)
		if n := b.inLedger(c.key); n != resend {
			b.t.Fatalf("%d operations before the latency has passed, want %d", n, resend)
		}
		b.clock.advance(500 * time.Millisecond)
		if r := <-answered; r.status != http.StatusCreated {
			b.t.Fatalf("slow answered %d %v", r.status, r.err)
		}
	}
	if n := b.inLedger(c.key); n != want {
		b.t.Fatalf("%s %s: %d operations in the ledger, want %d", kind, c.path, n, want)
	}
}

func (b *bank) lookupUnderFault(kind string) {
	b.t.Helper()
	get := call{path: "/v1/operations"}
	switch kind {
	case outage, serverError:
		r := b.do(b.t.Context(), http.MethodGet, get.path, "", "")
		if kind == outage && r.err == nil || kind == serverError && r.status != http.StatusInternalServerError {
			b.t.Fatalf("lookup answered %d %v", r.status, r.err)
		}
	case slow:
		answered := b.background(b.t.Context(), http.MethodGet, get)
		b.clock.await(b.t, 500*time.Millisecond)
		b.clock.advance(500 * time.Millisecond)
		if r := <-answered; r.status != http.StatusOK {
			b.t.Fatalf("lookup answered %d %v", r.status, r.err)
		}
	default:
		b.held(http.MethodGet, get)
	}
}

func TestFaultsEndAndAreListed(t *testing.T) {
	b := newBank(t)
	b.fault(`{"kind":"error","operation":"capture","seconds":30}`)
	b.fault(`{"kind":"late_applied"}`)
	read := func() (all struct{ Data []fault }) {
		t.Helper()
		r := b.do(t.Context(), http.MethodGet, "/v1/faults", "", "")
		if err := json.Unmarshal(r.body, &all); err != nil || all.Data == nil {
			t.Fatalf("%d %s: %v", r.status, r.body, err)
		}
		return all
	}
	all := read().Data
	if len(all) != 2 || all[0].Expires == nil || *all[0].Expires != "2026-11-24T12:00:30.000000Z" || all[0].ID == "" ||
		all[1].Expires != nil || all[1].LatencyMS != 3000 || all[1].Operation != "*" || all[1].Rate != 1 {
		t.Fatalf("faults are %+v", all)
	}
	b.clock.advance(30*time.Second - 1)
	if n := len(read().Data); n != 2 {
		t.Errorf("%d faults before the end of the first", n)
	}
	b.clock.advance(1)
	if all := read().Data; len(all) != 1 || all[0].Kind != lateApplied {
		t.Errorf("faults after the end of the first: %+v", all)
	}
	b.clearFaults()
	if all := read().Data; len(all) != 0 {
		t.Errorf("faults after clearing: %+v", all)
	}
}

func TestFaultRateIsDrawn(t *testing.T) {
	sim, err := Open(filepath.Join(t.TempDir(), "ledger.db"), Config{Rand: rand.NewPCG(1, 2)})
	if err != nil {
		t.Fatal(err)
	}
	defer sim.Close()
	f, err := newFault(faultRequest{Kind: serverError, Rate: new(0.1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sim.faults.add(f); err != nil {
		t.Fatal(err)
	}
	struck := 0
	for range 10_000 {
		if sim.faults.next(capture).kind != "" {
			struck++
		}
	}
	if struck < 900 || struck > 1100 { // ± 3.3 standard deviations; the seed is fixed
		t.Errorf("%d of 10000 requests were struck at a rate of 0.1", struck)
	}
}
