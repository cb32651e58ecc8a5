package test

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"payments/client"
	"payments/internal/provider/stripe/stripetest"
)

// The long form of this test is `make audit-load`.
const (
	auditRounds    = "PAYMENTS_AUDIT_ROUNDS"     // audits in a row; 3 unless set
	auditCompleted = "PAYMENTS_AUDIT_OPERATIONS" // of each kind between two audits; 8 unless set
	auditClients   = 16
)

func auditSetting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		return otherwise
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		t.Fatalf("%s must be a number from 1", name)
	}
	return n
}

// turnover is what the clients have completed.
type turnover struct{ posted, captured, canceled, refunded atomic.Int64 }

func (o *turnover) least() int64 {
	return min(o.posted.Load(), o.captured.Load(), o.canceled.Load(), o.refunded.Load())
}

func (o *turnover) String() string {
	return fmt.Sprintf("%d posted, %d captured, %d canceled, %d refunded", o.posted.Load(), o.captured.Load(), o.canceled.Load(), o.refunded.Load())
}

func TestAuditsUnderLoadAreClean(t *testing.T) {
	t.Run("simulator", func(t *testing.T) { auditsUnderLoad(t, newWorld(t, parts{})) })
	t.Run("stripe", func(t *testing.T) {
		w := newWorld(t, parts{})
		bank := stripetest.New(t)
		key := "sk_test_" + rand.Text()
		bank.Account(key)
		w.vars["PAYMENTS_PROVIDER"], w.vars["PAYMENTS_STRIPE_KEY"], w.vars["PAYMENTS_STRIPE_URL"] = "stripe", key, bank.URL
		delete(w.vars, "PAYMENTS_PROVIDER_URL")
		delete(w.vars, "PAYMENTS_PROVIDER_WEBHOOK_SECRETS")
		auditsUnderLoad(t, w)
	})
}

func auditsUnderLoad(t *testing.T, w *world) {
	t.Helper()
	rounds, completed := auditSetting(t, auditRounds, 3), int64(auditSetting(t, auditCompleted, 8))
	if _, err := w.db.Exec(t.Context(), `UPDATE stock SET on_hand = 900000000, received = 900000000 + reserved + sold`); err != nil {
		t.Fatal(err)
	}
	s := w.serve(nil)
	ctx, stop := context.WithCancel(t.Context())
	var done turnover
	// Each audit begins beside so many turns of the clients. Without a bound they would make more and
	// more payments for the next one to read.
	turns := make(chan struct{}, completed)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	for range auditClients {
		merchant := w.merchant(s)
		clients.Go(func() {
			for {
				select {
				case <-turns:
				case <-ctx.Done():
					return
				}
				if err := done.turn(t.Context(), merchant); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var took []time.Duration
	during := int64(1 << 62)
	for n := range rounds {
		for len(turns) < cap(turns) {
			turns <- struct{}{}
		}
		before, began := done.least(), time.Now()
		stdout, stderr, code := run(t.Context(), w.vars, "audit", "-kafka")
		took = append(took, time.Since(began))
		if code != 0 {
			t.Fatalf("audit %d of %d: exit code %d\n%s%s", n+1, rounds, code, stdout, stderr)
		}
		for line := range strings.Lines(stdout) {
			if strings.HasPrefix(line, "skip") || strings.Contains(line, "provider") && strings.Contains(line, " 0 checked") && n > 0 {
				t.Errorf("audit %d looked at too little: %s", n+1, line)
			}
		}
		during = min(during, done.least()-before)
		await(t, settleWithin, func() string {
			if have := done.least() - before; have < completed && !t.Failed() {
				return fmt.Sprintf("%d of %d operations of each kind are completed: %s", have, completed, &done)
			}
			return ""
		})
		if (n+1)%10 == 0 {
			t.Logf("%d audits are clean; %s", n+1, &done)
		}
	}
	stop()
	clients.Wait()
	w.audited()
	slices.Sort(took)
	t.Logf("%d audits, at least %d operations of each kind from one to the next, at least %d during each; %s; an audit took %s to %s, median %s",
		rounds, completed, during, &done, took[0].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), took[len(took)/2].Round(time.Millisecond))
}

// turn posts two payments, captures and refunds one, and cancels the other; each is
// completed before the next begins.
func (o *turnover) turn(ctx context.Context, merchant *client.Client) error {
	const patience = "wait=30"
	post := func() (client.PaymentID, error) {
		request := order("T-"+rand.Text(), "pm_card_visa")
		request.CaptureMethod = client.CaptureMethodManual
		a, err := merchant.CreatePayment(ctx, request, &client.CreatePaymentParams{IdempotencyKey: rand.Text(), Prefer: patience})
		if err != nil {
			return "", fmt.Errorf("post: %w", err)
		}
		if a.Value.Status != client.PaymentStatusRequiresCapture {
			return "", fmt.Errorf("%s is %s after it was posted", a.Value.ID, a.Value.Status)
		}
		o.posted.Add(1)
		return a.Value.ID, nil
	}
	id, err := post()
	if err != nil {
		return err
	}
	captured, err := merchant.CapturePayment(ctx, id, &client.CapturePaymentParams{Prefer: patience})
	if err != nil || captured.Value.Status != client.PaymentStatusSucceeded {
		return fmt.Errorf("capture %s: %w, %+v", id, err, captured)
	}
	o.captured.Add(1)
	if _, err := merchant.CreateRefund(ctx, id, client.RefundRequest{Amount: 1000}, &client.CreateRefundParams{IdempotencyKey: rand.Text()}); err != nil {
		return fmt.Errorf("refund %s: %w", id, err)
	}
	for {
		p, err := merchant.GetPayment(ctx, id, nil)
		if err != nil {
			return fmt.Errorf("get %s: %w", id, err)
		}
		if p.Value.AmountRefunded == 1000 {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil
		}
	}
	o.refunded.Add(1)
	if id, err = post(); err != nil {
		return err
	}
	canceled, err := merchant.CancelPayment(ctx, id, &client.CancelPaymentParams{Prefer: patience})
	if err != nil || canceled.Value.Status != client.PaymentStatusCanceled {
		return fmt.Errorf("cancel %s: %w, %+v", id, err, canceled)
	}
	o.canceled.Add(1)
	return nil
}

func TestTheAuditsExitCodesTellWhatHappened(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parts{})
	nobody := "127.0.0.1:1"
	for name, c := range map[string]struct {
		variable, value string
		args            []string
		code            int
	}{
		"clean":                     {"", "", nil, 0},
		"help":                      {"", "", []string{"-h"}, 0},
		"an unknown flag":           {"", "", []string{"-nothing"}, 2},
		"an argument":               {"", "", []string{"now"}, 2},
		"no time":                   {"", "", []string{"-from", "yesterday"}, 2},
		"a span that ends before":   {"", "", []string{"-from", "2026-11-02", "-to", "2026-11-01T00:00:00Z"}, 2},
		"no database is named":      {"PAYMENTS_DATABASE_URL", "", nil, 2},
		"no provider is named":      {"PAYMENTS_PROVIDER_URL", "", nil, 2},
		"another provider":          {"PAYMENTS_PROVIDER", "bank", nil, 2},
		"Stripe without a key":      {"PAYMENTS_PROVIDER", "stripe", nil, 2},
		"no broker is named":        {"PAYMENTS_KAFKA_BROKERS", "", []string{"-kafka"}, 2},
		"no broker is needed":       {"PAYMENTS_KAFKA_BROKERS", "", nil, 0},
		"the database is away":      {"PAYMENTS_DATABASE_URL", "postgres://u:p@" + nobody + "/d", nil, 3},
		"the read database is away": {"PAYMENTS_READ_DATABASE_URL", "postgres://u:p@" + nobody + "/d", nil, 3},
		"the provider is away":      {"PAYMENTS_PROVIDER_URL", "http://" + nobody, nil, 3},
		"the broker is away":        {"PAYMENTS_KAFKA_BROKERS", nobody, []string{"-kafka"}, 3},
	} {
		vars := maps.Clone(w.vars)
		if c.variable != "" {
			vars[c.variable] = c.value
		}
		stdout, stderr, code := run(t.Context(), vars, append([]string{"audit"}, c.args...)...)
		if code != c.code || code > 1 && stderr == "" {
			t.Errorf("%s: exit code %d, want %d\n%s%s", name, code, c.code, stdout, stderr)
		}
	}
	if _, err := w.db.Exec(t.Context(), `UPDATE stock SET sold = sold + 1, received = received + 1`); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, code := run(t.Context(), w.vars, "audit"); code != 1 || !strings.Contains(stdout, "FAIL   4  stock is conserved") {
		t.Errorf("with a violation: exit code %d\n%s%s", code, stdout, stderr)
	}
}
