package order_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/access"
	"payments/internal/inbox"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/readmodel"
)

// project applies every event of the outbox, as the projector would.
func (w *world) project() {
	w.t.Helper()
	rows, err := w.pool.Query(w.t.Context(), `SELECT key, payload, headers FROM outbox ORDER BY position`)
	if err != nil {
		w.t.Fatal(err)
	}
	messages, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m inbox.Message, err error) {
		var headers []string
		err = row.Scan(&m.Key, &m.Value, &headers)
		m.Headers = map[string]string{}
		for pair := range slices.Chunk(headers, 2) {
			m.Headers[pair[0]] = pair[1]
		}
		return m, err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := postgres.InTx(w.t.Context(), w.pool, func(tx pgx.Tx) error { return readmodel.NewProjector().Project(w.t.Context(), tx, messages) }); err != nil {
		w.t.Fatal(err)
	}
}

// scope is that of the merchant's own API key.
func (w *world) scope() access.Scope {
	w.t.Helper()
	a, err := access.NewAuthorizer(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		w.t.Fatal(err)
	}
	decision, err := a.Authorize(w.t.Context(), access.Principal{KeyID: "key_1", MerchantID: w.merchant, Role: access.RoleMerchant}, access.PaymentsRead)
	if err != nil {
		w.t.Fatal(err)
	}
	return decision.Scope
}

// agree holds every payment as a command answers it to what a GET answers of the same event.
func (w *world) agree() {
	w.t.Helper()
	w.project()
	queries := readmodel.NewQueries(w.pool)
	for _, id := range one[[]string](w, `SELECT coalesce(array_agg(id), '{}') FROM payments`) {
		written, err := w.orders.Payment(w.t.Context(), w.merchant, id)
		if err != nil {
			w.t.Fatal(err)
		}
		read, err := queries.Get(w.t.Context(), w.scope(), id)
		if err != nil {
			w.t.Fatal(err)
		}
		if diff := cmp.Diff(read, readmodel.Payment(written)); diff != "" {
			w.t.Errorf("%s, a GET and a command differ (-read +written):\n%s", id, diff)
		}
	}
}

func TestAPaymentIsReadAsTheReadModelHasIt(t *testing.T) {
	w := newWorld(t)
	w.placed("pm_card_visa", payment.CaptureManual, payment.DraftLine{SKU: "PRESENT", Quantity: 1})
	w.agree() // placed
	var ids []string
	for _, method := range []string{"pm_card_visa", "pm_card_declined", "pm_card_capture_declined"} {
		ids = append(ids, w.placed(method, ""))
	}
	held, canceled := w.placed("pm_card_visa", payment.CaptureManual), w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	w.agree()
	part := int64(999)
	if _, err := w.refund(t.Context(), ids[0], &part); err != nil {
		t.Fatal(err)
	}
	w.agree() // a refund is pending
	w.change(func() error { return second(w.orders.Capture(t.Context(), w.merchant, held)) })
	w.change(func() error { return second(w.orders.Cancel(t.Context(), w.merchant, canceled)) })
	w.agree() // asked, and not done
	w.settle()
	w.agree()
}

func TestCommandsAnswerThePaymentAsItIs(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	want, err := w.orders.Payment(t.Context(), w.merchant, id)
	if err != nil || want.Status != payment.StatusRequiresCapture || want.Sequence != 3 {
		t.Fatalf("%+v, %v", want, err)
	}
	// In this order: after a cancel no capture is accepted.
	for _, command := range []struct {
		name string
		do   func(ctx context.Context, merchantID, paymentID string) (order.Payment, error)
	}{{"capture", w.orders.Capture}, {"cancel", w.orders.Cancel}} {
		if got, err := command.do(t.Context(), w.merchant, id); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %v\n%s", command.name, err, cmp.Diff(want, got))
		}
	}
	for name, c := range map[string]struct{ merchant, id string }{
		"another merchant": {w.ids.New(payment.PrefixMerchant), id}, "no payment": {w.merchant, w.ids.New(payment.PrefixPayment)}, "no id": {w.merchant, "pay_\x00"},
	} {
		if _, err := w.orders.Payment(t.Context(), c.merchant, c.id); refusal(t, err).Code != payment.CodeNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := w.orders.Payment(t.Context(), "", id); err != nil || got.MerchantID != w.merchant {
		t.Errorf("of any merchant: %+v, %v", got, err)
	}
}

func TestAWaitEndsWithTheOutcomeOrWithWhatIsKnown(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", "")
	for name, wait := range map[string]time.Duration{"no wait": 0, "a wait that is over": time.Millisecond} {
		if p, ok, err := w.orders.WaitFor(t.Context(), w.merchant, id, wait, payment.Status.Settled); ok || err != nil || p.Status != payment.StatusProcessing {
			t.Errorf("%s: %s, %t, %v", name, p.Status, ok, err)
		}
	}
	type waited struct {
		p   order.Payment
		ok  bool
		err error
	}
	got := make(chan waited)
	go func() {
		p, ok, err := w.orders.WaitFor(t.Context(), w.merchant, id, time.Hour, payment.Status.Settled)
		got <- waited{p, ok, err}
	}()
	w.settle()
	if g := <-got; !g.ok || g.err != nil || g.p.Status != payment.StatusSucceeded || g.p.Sequence != 5 {
		t.Errorf("%+v", g)
	}
	if _, _, err := w.orders.WaitFor(t.Context(), w.merchant, w.ids.New(payment.PrefixPayment), time.Hour, payment.Status.Settled); refusal(t, err).Code != payment.CodeNotFound {
		t.Error(err)
	}
}
