package order_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"payments/internal/order"
	"payments/internal/provider"
)

// babbling is a bank, or a gateway before it, that answers authorizations with whatever bytes.
type babbling struct {
	provider.Provider
	answer provider.Result
}

func (b babbling) Execute(context.Context, provider.Operation) provider.Result { return b.answer }
func (b babbling) Lookup(context.Context, provider.Operation) provider.Result  { return b.answer }

// A gateway before Stripe answers 502 with a byte that is no UTF-8 (Latin-1, as old proxies
// write), or with megabytes: what came of the call is committed all the same.
func TestWhateverAProviderWritesItsOutcomeIsCommitted(t *testing.T) {
	babble := strings.Repeat("Dienst nicht verf\xfcgbar\x00\x1b[2J\n", 4<<20/24)
	for name, c := range map[string]struct {
		answer          provider.Result
		status, failure string
	}{
		"unknown":              {provider.Result{Outcome: provider.Unknown, Err: errors.New(babble)}, "requires_review", "unresolved"},
		"unknown, with a code": {provider.Result{Outcome: provider.Unknown, Code: babble, Err: errors.New(babble)}, "requires_review", "unresolved"},
		"rejected":             {provider.Result{Outcome: provider.Rejected, OperationID: babble, Code: "no\x00funds\xfc", Message: babble}, "failed", "no\ufffdfunds\ufffd"},
		// It was authorized, and nobody could void or capture it by this name.
		"succeeded, by no name":     {provider.Result{Outcome: provider.Succeeded, OperationID: "pi_\x00"}, "requires_review", "unresolved"},
		"succeeded, by a long name": {provider.Result{Outcome: provider.Succeeded, OperationID: strings.Repeat("x", 256)}, "requires_review", "unresolved"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.policy.KeyLifetime = 300 * time.Millisecond
			w.config.Provider = babbling{w.config.Provider, c.answer}
			w.orders = order.New(w.config)
			id := w.placed("pm_card_visa", "")
			w.settle()
			if s, failure := w.status(id), one[string](w, `SELECT failure_code FROM payments WHERE id = $1`, id); s != c.status || failure != c.failure {
				t.Errorf("the payment is %s, failure %s", s, failure)
			}
			for _, column := range []string{"code", "detail", "reference"} {
				longest := one[int](w, `SELECT coalesce(max(char_length(`+column+`)), 0) FROM saga_attempts`)
				text := one[string](w, `SELECT coalesce(string_agg(`+column+`, ''), '') FROM saga_attempts`)
				if longest > 1000 || !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\x1b\n") {
					t.Errorf("%s of %d characters: %.200q", column, longest, text)
				}
			}
			w.told()
			w.agree() // it is projected
		})
	}
}
