package readmodel

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/inbox"
	"payments/internal/payment"
	"payments/internal/postgres"
)

func notFound(err error) bool {
	coded, ok := errors.AsType[*payment.Error](err)
	return ok && coded.Code == payment.CodeNotFound
}

func TestAMerchantSeesItsOwnAlone(t *testing.T) {
	w := newWorld(t)
	mine, theirs := w.order(w.merchant()), w.order(w.merchant())
	w.apply(append(mine.succeeded(), theirs.succeeded()...)...)
	scope := merchant(t, mine.ids.MerchantID)

	if p, err := w.queries.Get(t.Context(), scope, mine.ids.PaymentID); err != nil || p.ID != mine.ids.PaymentID {
		t.Errorf("own payment: %+v, %v", p, err)
	}
	var refusals []string
	for _, id := range []string{theirs.ids.PaymentID, w.ids.New(payment.PrefixPayment), mine.ids.OrderID, "pay_\x00", ""} {
		_, err := w.queries.Get(t.Context(), scope, id)
		if !notFound(err) {
			t.Errorf("Get(%q) = %v, want not found", id, err)
			continue
		}
		refusals = append(refusals, err.Error())
		if _, err := w.queries.Timeline(t.Context(), scope, id, 0, 100); !notFound(err) {
			t.Errorf("Timeline(%q) = %v, want not found", id, err)
		}
	}
	for _, r := range refusals {
		same(t, "another merchant's payment and none", r, refusals[0])
	}
	page, err := w.queries.List(t.Context(), scope, Filter{})
	if err != nil || len(page.Payments) != 1 || page.Payments[0].ID != mine.ids.PaymentID {
		t.Errorf("List = %+v, %v", page, err)
	}
	page, err = w.queries.List(t.Context(), operator(t), Filter{})
	if err != nil || len(page.Payments) != 2 {
		t.Errorf("operator's List = %+v, %v", page, err)
	}
}

func TestTheTimelineTellsEventsAndAttempts(t *testing.T) {
	w := newWorld(t)
	o := w.order(w.merchant())
	events := o.succeeded()
	w.apply(events...)
	got, err := w.queries.Timeline(t.Context(), merchant(t, o.ids.MerchantID), o.ids.PaymentID, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(events) {
		t.Fatalf("%d entries, want %d", len(got), len(events))
	}
	for i, e := range got {
		h := events[i].Headers
		if e.Sequence != int64(i+1) || e.EventID != h["ce_id"] || string(e.Type) != h["ce_type"] ||
			e.OccurredAt.Format(time.RFC3339Nano) != h["ce_time"] {
			t.Errorf("entry %d = %+v, want the event %v", i, e, h)
		}
	}
	if a := got[2].Attempts; len(a) != 2 || a[0].Outcome != "unknown" || a[1].Number != 3 || a[1].Step != "authorize_payment" {
		t.Errorf("attempts = %+v", a)
	}
	if got[4].Status != payment.StatusSucceeded {
		t.Errorf("last status = %s", got[4].Status)
	}
}

// after runs when a query has ended, on the goroutine that reads.
type after func()

func (after) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (f after) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) { f() }

// tracing are queries with something happening after each.
func (w *world) tracing(f after) *Queries {
	w.t.Helper()
	config := w.pool.Config()
	config.ConnConfig.Tracer = f
	pool, err := pgxpool.NewWithConfig(w.t.Context(), config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(pool.Close)
	return NewQueries(pool)
}

func TestTheTimelineHasPages(t *testing.T) {
	w := newWorld(t)
	o := w.order(w.merchant())
	events := o.succeeded()
	w.apply(events...)
	var got []int64
	for after := int64(0); ; {
		page, err := w.queries.Timeline(t.Context(), merchant(t, o.ids.MerchantID), o.ids.PaymentID, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			got = append(got, e.Sequence)
		}
		if len(page) < 2 {
			break
		}
		after = page[1].Sequence
	}
	if len(got) != len(events) || !slices.IsSorted(got) || got[0] != 1 {
		t.Errorf("the pages have %v of %d events", got, len(events))
	}
}

func TestAPositionIsAwaitedUntilItIsProjected(t *testing.T) {
	w := newWorld(t)
	o := w.order(w.merchant())
	scope := merchant(t, o.ids.MerchantID)
	at := Position{MerchantID: o.ids.MerchantID, PaymentID: o.ids.PaymentID, Sequence: 1}
	if passed, err := w.queries.Passed(t.Context(), scope, at); passed || err != nil {
		t.Errorf("before its projection: %v %v", passed, err)
	}
	placed := o.placed()
	q := w.tracing(func() { w.apply(placed) }) // there once the first read has missed it
	if err := q.AwaitPosition(t.Context(), scope, at); err != nil {
		t.Error(err)
	}
	if passed, err := w.queries.Passed(t.Context(), scope, at); !passed || err != nil {
		t.Errorf("after its projection: %v %v", passed, err)
	}
	at.PaymentID = w.ids.New(payment.PrefixPayment)
	if passed, err := w.queries.Passed(t.Context(), merchant(t, w.merchant()), at); !passed || err != nil {
		t.Errorf("another merchant's: %v %v", passed, err)
	}
}

func TestADatabaseThatIsAwayIsNotANotFound(t *testing.T) {
	w := newWorld(t)
	id := w.order(w.merchant()).ids.PaymentID
	away, err := postgres.Open(t.Context(), "postgres://app@127.0.0.1:1/none")
	if err != nil {
		t.Fatal(err)
	}
	defer away.Close()
	q := NewQueries(away)
	if _, err := q.Get(t.Context(), operator(t), id); !postgres.Unavailable(err) {
		t.Errorf("Get = %v", err)
	}
}

func TestATransientErrorRollsTheBatchBack(t *testing.T) {
	w := newWorld(t)
	a, b := w.order(w.merchant()), w.order(w.merchant())
	batch := []inbox.Message{a.placed(), b.placed()}
	locked, err := pgx.ConnectConfig(t.Context(), w.pool.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Close(t.Context())
	tx, err := locked.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Another session holds b's row uncommitted: the projector runs into its lock timeout.
	if _, err := tx.Exec(t.Context(), `SET LOCAL idle_in_transaction_session_timeout = 0`); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `
		INSERT INTO payment_view (merchant_id, payment_id, order_id, sequence, status, currency, amount,
			payment_method, customer_reference, order_reference, lines, created_at, updated_at)
		VALUES ($1, $2, $3, 1, '', '', 1, '', '', '', '[]', now(), now())`,
		b.ids.MerchantID, b.ids.PaymentID, b.ids.OrderID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.inbox.Apply(t.Context(), 1, batch); !postgres.Unavailable(err) {
		t.Fatalf("Apply = %v, want a lock timeout", err)
	}
	if rows := w.contents(); len(rows) != 0 {
		t.Errorf("left behind: %q", rows)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.apply(batch...)
	if rows := w.contents(); len(rows) != 4 {
		t.Errorf("%d rows, want 4", len(rows))
	}
}
