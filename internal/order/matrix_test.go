package order_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"payments/internal/payment"
	"payments/internal/saga"
)

// ends is how a payment of each method ends, whatever befalls it on the way.
var ends = map[string]string{
	"pm_card_visa": "succeeded", "pm_card_declined": "failed", "pm_card_insufficient_funds": "failed",
	"pm_card_capture_declined": "failed", "pm_card_timeout_applied": "succeeded", "pm_card_timeout_lost": "succeeded",
	"pm_card_late_applied": "succeeded", "pm_card_flaky": "succeeded", "pm_card_slow": "succeeded",
}

var matrixFaults = []string{"none", "outage", "error", "timeout_applied", "timeout_lost", "late_applied", "slow"}

var matrixSteps = []string{
	"reserve_stock", "authorize_payment", "await_capture", "capture_payment", "confirm_order", "void_authorization", "release_stock", "refund_payment",
}

// dies is whether a worker comes to the point with the step: what follows in the
// commit of another step's outcome has none of its own, and a local step makes no call.
func dies(point, step string) bool {
	switch step {
	case "confirm_order", "release_stock":
		return false
	case "reserve_stock", "await_capture":
		return point != "call" && point != "called"
	}
	return true
}

// cell counts what one fault and one point went through.
type cell struct{ deaths, payments, succeeded, failed, canceled, refunds int }

// TestTheCrashMatrix lets the worker die at every boundary of every step, with
// every payment method in its hands and every fault at the bank, and audits what
// is left. PAYMENTS_CRASH_MATRIX=full runs all of it; else each fault takes the
// boundaries of its turn, so that all are run with some fault.
func TestTheCrashMatrix(t *testing.T) {
	full := os.Getenv("PAYMENTS_CRASH_MATRIX") == "full"
	var mu sync.Mutex
	cells := map[string]*cell{}
	t.Run("faults", func(t *testing.T) {
		for n, fault := range matrixFaults {
			t.Run(fault, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				if fault != "none" {
					w.fault(`{"kind": "` + fault + `", "operation": "*", "rate": 0.25, "latency_ms": 200}`)
				}
				for p, point := range saga.CrashPoints() {
					c := cell{}
					for s, step := range matrixSteps {
						if full || (p+s)%len(matrixFaults) == n {
							w.round(&c, point, step)
						}
					}
					mu.Lock()
					cells[fault+"\t"+point] = &c
					mu.Unlock()
				}
				w.crash = nil
				w.heal()
				w.drainAwaits()
				w.audited()
			})
		}
	})
	t.Log("\n" + table(cells))
}

// round has a payment of each method, two of them manual, and a refund, and a
// worker that dies once at the point before or after the step.
func (w *world) round(c *cell, point, step string) {
	w.t.Helper()
	w.exec(`UPDATE stock SET on_hand = 1000, received = 1000 + reserved + sold`)
	payments := map[string]string{}
	for method := range ends {
		payments[w.placed(method, "")] = method
	}
	captured, canceled := w.placed("pm_card_visa", payment.CaptureManual), w.placed("pm_card_timeout_applied", payment.CaptureManual)
	w.dieOnce(point, step)
	before := w.crashed.Load()
	w.settle()
	w.change(func() error { return second(w.orders.Capture(w.t.Context(), w.merchant, captured)) })
	w.change(func() error { return second(w.orders.Cancel(w.t.Context(), w.merchant, canceled)) })
	refunded := captured
	for id, method := range payments {
		if method == "pm_card_visa" {
			refunded = id
		}
	}
	if _, err := w.refund(w.t.Context(), refunded, nil); err != nil {
		w.t.Fatal(err)
	}
	w.settle()
	deaths := int(w.crashed.Load() - before)
	if want := map[bool]int{true: 1}[dies(point, step)]; deaths != want {
		w.t.Errorf("dead at %s of %s: %d deaths, want %d", point, step, deaths, want)
	}
	c.deaths += deaths
	c.payments += len(payments) + 2
	for id, method := range payments {
		s := w.status(id)
		if s != ends[method] {
			w.t.Errorf("dead at %s of %s: %s is %s, want %s", point, step, method, s, ends[method])
		}
		if s == "succeeded" {
			c.succeeded++
		} else {
			c.failed++
		}
	}
	if s := w.status(captured); s != "succeeded" {
		w.t.Errorf("dead at %s of %s: the captured payment is %s", point, step, s)
	}
	if s := w.status(canceled); s != "canceled" {
		w.t.Errorf("dead at %s of %s: the canceled payment is %s", point, step, s)
	}
	c.succeeded, c.canceled, c.refunds = c.succeeded+1, c.canceled+1, c.refunds+1
	if got, _ := w.amounts(refunded); got != 2*2499 {
		w.t.Errorf("dead at %s of %s: %d refunded", point, step, got)
	}
}

func table(cells map[string]*cell) string {
	var b strings.Builder
	out := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "fault\tdeath\tdeaths\tpayments\tsucceeded\tfailed\tcanceled\trefunds\t")
	for _, fault := range matrixFaults {
		for _, point := range saga.CrashPoints() {
			if c := cells[fault+"\t"+point]; c != nil && c.payments > 0 {
				fmt.Fprintf(out, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", fault, point, c.deaths, c.payments, c.succeeded, c.failed, c.canceled, c.refunds)
			}
		}
	}
	_ = out.Flush() // to a strings.Builder
	return b.String()
}
