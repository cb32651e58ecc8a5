package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestOneKeyIsOneOperation(t *testing.T) {
	b := newBank(t)
	const clients = 50
	ids := make(chan string, clients)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			r := b.do(t.Context(), http.MethodPost, "/v1/authorizations", "k", authorize("", "pm_card_visa").body)
			if r.status != http.StatusCreated {
				t.Errorf("answered %d %s %v", r.status, r.body, r.err)
			}
			ids <- string(r.body)
		})
	}
	wg.Wait()
	first := <-ids
	for range clients - 1 {
		if other := <-ids; other != first {
			t.Errorf("answers differ: %s and %s", first, other)
		}
	}
	if got := b.list(nil); len(got) != 1 {
		t.Errorf("ledger has %d operations", len(got))
	}
	other := authorize("k", "pm_card_visa")
	other.body = strings.Replace(other.body, "4998", "4997", 1)
	b.want(other, http.StatusUnprocessableEntity, "idempotency_key_reused")
	b.want(voidOf("k", "op_1"), http.StatusUnprocessableEntity, "idempotency_key_reused")
	spaced := authorize("k", "pm_card_visa")
	spaced.body = strings.ReplaceAll(spaced.body, ",", ", ")
	b.want(spaced, http.StatusCreated, "")
}

func TestCaptureAndVoidExactlyOneWins(t *testing.T) {
	b := newBank(t)
	for i := range 30 {
		auth := b.want(authorize(fmt.Sprint("a", i), "pm_card_visa"), http.StatusCreated, "")
		statuses := make(chan int, 2)
		for _, c := range []call{captureOf(fmt.Sprint("c", i), auth.ID, 4998), voidOf(fmt.Sprint("v", i), auth.ID)} {
			go func() { statuses <- b.do(t.Context(), http.MethodPost, c.path, c.key, c.body).status }()
		}
		if one, two := <-statuses, <-statuses; one+two != http.StatusCreated+http.StatusPaymentRequired {
			t.Fatalf("capture and void answered %d and %d", one, two)
		}
	}
}

func TestConcurrentRefundsNeverExceedTheCapture(t *testing.T) {
	b := newBank(t)
	auth := b.want(authorize("a", "pm_card_visa"), http.StatusCreated, "")
	captured := b.want(captureOf("c", auth.ID, 4998), http.StatusCreated, "")
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			c := refundOf(fmt.Sprint("r", i), captured.ID, 1666)
			b.do(t.Context(), http.MethodPost, c.path, c.key, c.body)
		})
	}
	wg.Wait()
	won := 0
	for _, o := range b.list(url.Values{"type": {refund}}) {
		if o.Status == succeeded {
			won++
		}
	}
	if won != 3 {
		t.Errorf("%d refunds of a third succeeded", won)
	}
}

func TestListIsOldestFirstAndFiltered(t *testing.T) {
	b := newBank(t)
	const n = pageScan + 100 // more than one page
	var wg sync.WaitGroup
	for client := range 20 {
		wg.Go(func() {
			for i := range n / 20 {
				r := request{Type: authorization, Reference: fmt.Sprint("pay_", (client*n/20+i)%3), Amount: 1, Currency: "EUR", PaymentMethod: "pm_card_visa"}
				if _, err := b.sim.submit(fmt.Sprint("k", client, "-", i), r, true); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	auth := b.want(authorize("last", "pm_card_visa"), http.StatusCreated, "")
	b.clock.advance(1500 * time.Millisecond)
	b.want(voidOf("void", auth.ID), http.StatusCreated, "")

	all := b.list(nil)
	seen := map[string]bool{}
	for _, o := range all {
		seen[o.ID] = true
	}
	if len(all) != n+2 || len(seen) != n+2 || all[n].ID != auth.ID || all[n+1].Type != void {
		t.Fatalf("list has %d operations, %d different", len(all), len(seen))
	}
	if all[n+1].Created != "2026-11-24T12:00:01.500000Z" {
		t.Errorf("created is %s", all[n+1].Created)
	}
	for _, tc := range []struct {
		query string
		want  int
	}{
		{"reference=pay_1", n/3 + 1 + 2}, {"reference=pay_", 0}, {"reference=pay_1&type=void", 1}, {"type=void", 1},
		{"idempotency_key=void", 1}, {"reference=pay_1&type=void&idempotency_key=void", 1}, {"reference=pay_2&idempotency_key=void", 0}, {"idempotency_key=none", 0},
	} {
		query, _ := url.ParseQuery(tc.query)
		if got := b.list(query); len(got) != tc.want {
			t.Errorf("%s lists %d operations, want %d", tc.query, len(got), tc.want)
		}
	}

	if bounded, _, done, err := b.sim.ledger.page(filter{}, 0, 7); err != nil || len(bounded) != 7 || !done {
		t.Errorf("a list that began at 7 operations has %d, done %t; %v", len(bounded), done, err)
	}

	r := b.do(t.Context(), http.MethodGet, "/v1/operations?type=void", "", "")
	var raw struct{ Data []map[string]any }
	if err := json.Unmarshal(r.body, &raw); err != nil {
		t.Fatal(err)
	}
	for _, member := range []string{"id", "reference", "type", "status", "amount", "currency", "created"} {
		if _, ok := raw.Data[0][member]; !ok {
			t.Errorf("an operation has no member %q: %s", member, r.body)
		}
	}
}

func TestRestartKeepsOperationsAndStrikes(t *testing.T) {
	b := newBank(t)
	auth := b.want(authorize("visa", "pm_card_visa"), http.StatusCreated, "")
	b.held(http.MethodPost, authorize("applied", "pm_card_timeout_applied"))
	b.held(http.MethodPost, authorize("lost", "pm_card_timeout_lost"))
	b.held(http.MethodPost, authorize("late", "pm_card_late_applied"))
	b.want(authorize("flaky", "pm_card_flaky"), http.StatusInternalServerError, "provider_error")
	ctx := t.Context()
	held := b.background(ctx, http.MethodPost, authorize("held", "pm_card_timeout_lost"))
	b.clock.await(t, holdLimit)
	taking := b.background(ctx, http.MethodPost, authorize("slow", "pm_card_slow"))
	b.clock.await(t, slowLatency)

	b.restart()
	for name, answered := range map[string]<-chan reply{"held": held, "slow": taking} {
		if r := <-answered; r.err == nil {
			t.Errorf("the %s request was answered %d", name, r.status)
		}
	}
	for _, d := range []time.Duration{lateLatency, slowLatency, holdLimit} {
		if n := b.clock.waiting(d); n != 0 {
			t.Errorf("%d timers of %s outlive Close", n, d)
		}
	}
	b.clock.advance(time.Hour)
	if got := len(b.list(nil)); got != 2 {
		t.Errorf("ledger has %d operations after the restart, want 2", got)
	}
	if again := b.want(authorize("visa", "pm_card_visa"), http.StatusCreated, ""); again != auth {
		t.Errorf("the first answer changed: %+v and %+v", auth, again)
	}
	b.want(authorize("flaky", "pm_card_flaky"), http.StatusInternalServerError, "provider_error")
	for _, key := range []string{"applied", "lost", "late", "flaky", "slow"} {
		b.want(authorize(key, "pm_card_"+map[string]string{"applied": "timeout_applied", "lost": "timeout_lost", "late": "late_applied", "flaky": "flaky", "slow": "slow"}[key]), http.StatusCreated, "")
	}
}

func TestHoldEndsByItself(t *testing.T) {
	b := newBank(t)
	answered := b.background(t.Context(), http.MethodPost, authorize("k", "pm_card_timeout_lost"))
	b.clock.await(t, 60*time.Second)
	b.clock.advance(60 * time.Second)
	if r := <-answered; r.err == nil {
		t.Errorf("answered %d", r.status)
	}
}

func TestClosedSimulatorSaysSo(t *testing.T) {
	b := newBank(t)
	if err := b.sim.Close(); err != nil {
		t.Fatal(err)
	}
	b.want(authorize("k", "pm_card_visa"), http.StatusServiceUnavailable, "closing")
}

func TestOpenErrorsAreOneSentence(t *testing.T) {
	b := newBank(t)
	_, err := Open(b.path, Config{})
	if want := "the simulator's ledger " + b.path + " is in use by another simulator"; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
	garbage := filepath.Join(t.TempDir(), "ledger.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("not a ledger ", 10_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", t.TempDir(), garbage} {
		if _, err := Open(path, Config{}); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("Open(%q) gives %v", path, err)
		}
	}
}
