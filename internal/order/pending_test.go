package order_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"payments/internal/order"
	"payments/internal/provider"
)

// pending is a bank in health that holds every refund back for days, as Stripe does
// while the balance does not suffice.
type pending struct {
	provider.Provider
	mu     sync.Mutex
	looked map[string]bool // references
}

func (p *pending) Execute(ctx context.Context, op provider.Operation) provider.Result {
	if op.Type != provider.Refund {
		return p.Provider.Execute(ctx, op)
	}
	return provider.Result{Outcome: provider.Unknown, InFlight: true, Pending: true, Err: errors.New("the refund is pending")}
}

func (p *pending) Lookup(ctx context.Context, op provider.Operation) provider.Result {
	if op.Type != provider.Refund {
		return p.Provider.Lookup(ctx, op)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looked[op.Reference] = true
	return provider.Result{Outcome: provider.Unknown, Pending: true, Err: errors.New("the refund is pending")}
}

// More refunds are pending than it takes unknown outcomes to shut the circuit: they
// are looked up, and nobody else waits for them.
func TestWhatIsPendingSaysNothingAgainstTheBank(t *testing.T) {
	const refunds = 30
	w := newWorld(t)
	bank := &pending{Provider: w.config.Provider, looked: map[string]bool{}}
	w.config.Provider = bank
	w.orders = order.New(w.config)
	w.exec(`UPDATE stock SET on_hand = 1000, received = 1000 + reserved + sold`)
	var won []string
	for range refunds {
		won = append(won, w.placed("pm_card_visa", ""))
	}
	w.settle()
	for _, id := range won {
		if _, err := w.refund(t.Context(), id, nil); err != nil {
			t.Fatal(err)
		}
	}
	pause := func(int) time.Duration { return 10 * time.Millisecond }
	w.policy.Backoff, w.policy.UndoBackoff = pause, pause
	worker := w.worker()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(bank.looked) < refunds {
		if _, err := worker.RunOnce(ctx); err != nil {
			t.Fatalf("%d of %d pending refunds were looked up: %v", len(bank.looked), refunds, err)
		}
		worker.Drain()
	}
	if open, allowed := gaugeValue(t, w, "payments_saga_circuit_open"), gaugeValue(t, w, "payments_saga_calls_allowed"); open != 0 || allowed != 32 {
		t.Errorf("the circuit to a bank that answers is open (%v), and %v calls are allowed", open, allowed)
	}
	if n := w.count(`SELECT count(*) FROM sagas WHERE definition = 'refund' AND due_at IS NOT NULL`); n != refunds {
		t.Errorf("%d of %d refunds are on their way", n, refunds)
	}
}
