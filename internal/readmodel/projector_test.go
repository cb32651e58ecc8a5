package readmodel

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"payments/internal/inbox"
	"payments/internal/payment"
)

func TestAPaymentsRowFollowsItsEvents(t *testing.T) {
	w := newWorld(t)
	won, lost := w.order(w.merchant()), w.order(w.merchant())
	w.apply(won.succeeded()...)
	w.apply(lost.failed()...)

	got := w.get(won)
	same(t, "succeeded", got, Payment{
		MerchantID: won.ids.MerchantID, ID: won.ids.PaymentID, OrderID: won.ids.OrderID, Sequence: 5,
		Status: payment.StatusSucceeded, Amount: 4998, AmountCaptured: 4998, Currency: "EUR", PaymentMethod: "pm_card_visa", CaptureMethod: payment.CaptureAutomatic,
		CustomerReference: "cust-42", CustomerEmailCiphertext: []byte("sealed"), OrderReference: "A-1001",
		Lines:     []payment.LineData{{SKU: "TSHIRT-M", Quantity: 2, UnitAmount: 2499}},
		CreatedAt: time.Date(2026, 3, 1, 12, 0, 1, 0, time.UTC), UpdatedAt: time.Date(2026, 3, 1, 12, 0, 5, 0, time.UTC),
	})
	got = w.get(lost)
	if got.Status != payment.StatusFailed || got.AmountCaptured != 0 || got.Failure == nil || got.Failure.Code != "card_declined" {
		t.Errorf("failed = %+v", got)
	}
	if reasons := w.deadLetters(); len(reasons) > 0 {
		t.Errorf("dead letters: %q", reasons)
	}
}

func TestAFailureStaysWhenALaterEventHasNone(t *testing.T) {
	w := newWorld(t)
	o := w.order(w.merchant())
	w.apply(o.failed()[:4]...)
	if got := w.get(o); got.Sequence != 4 || got.Failure == nil {
		t.Errorf("after stock.released: %+v", got)
	}
}

// What a person had to decide is no failure of a payment that has succeeded since.
func TestAReviewsFailureGoesWithTheOrdersConfirmation(t *testing.T) {
	w := newWorld(t)
	o := w.order(w.merchant())
	why := func(d *payment.EventData) {
		d.Failure = &payment.Failure{Code: "unresolved", Step: "capture_payment", Message: "A person has to decide."}
	}
	w.apply(o.placed(), o.event(payment.EventReviewRequired, payment.StatusRequiresReview, why))
	if got := w.get(o); got.Failure == nil {
		t.Fatalf("under review: %+v", got)
	}
	w.apply(o.event(payment.EventOrderConfirmed, payment.StatusSucceeded, nil))
	if got := w.get(o); got.Status != payment.StatusSucceeded || got.Failure != nil {
		t.Errorf("confirmed: %+v", got)
	}
}

func TestAReplayOfTheWholeTopicChangesNothing(t *testing.T) {
	w := newWorld(t)
	a, b := w.order(w.merchant()), w.order(w.merchant())
	topic := append(a.succeeded(), b.failed()...)
	w.apply(topic...)
	before := w.contents()
	if len(before) != 12 {
		t.Fatalf("%d rows, want 2 payments and 10 lines of timeline", len(before))
	}
	w.apply(topic...)
	same(t, "after a replay", w.contents(), before)

	// Not even when the inbox has forgotten every id: the sequence holds.
	if _, err := w.pool.Exec(t.Context(), `DELETE FROM inbox_messages`); err != nil {
		t.Fatal(err)
	}
	w.apply(topic...)
	same(t, "after a replay without dedup rows", w.contents(), before)
	same(t, "dead letters", w.deadLetters(), []string{})
}

func TestARowThatIsThrownAwayIsFilledAgain(t *testing.T) {
	w := newWorld(t)
	topic := w.order(w.merchant()).succeeded()
	w.apply(topic...)
	before := w.contents()
	for _, sql := range []string{`DELETE FROM inbox_messages`, `DELETE FROM payment_view`} {
		if _, err := w.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	w.apply(topic...)
	same(t, "rebuilt", w.contents(), before)
}

func TestAnOlderEventIsDropped(t *testing.T) {
	w := newWorld(t)
	o := w.order(w.merchant())
	events := o.failed()
	w.apply(events...)
	before := w.contents()
	old := events[1]
	old.Offset = 99
	if _, err := w.pool.Exec(t.Context(), `DELETE FROM inbox_messages`); err != nil { // not known to the inbox
		t.Fatal(err)
	}
	w.apply(old)
	same(t, "after an older event", w.contents(), before)
	same(t, "dead letters", w.deadLetters(), []string{})
}

func TestAGapBlocksItsKeyAndOthersFlow(t *testing.T) {
	w := newWorld(t)
	gap, fine, late := w.order(w.merchant()), w.order(w.merchant()), w.order(w.merchant())
	g, f, l := gap.succeeded(), fine.succeeded(), late.succeeded()
	w.apply(g[0], f[0], g[1], g[3], f[1], g[4], f[2], l[2], f[3])
	w.apply(f[4])
	if got := w.get(gap); got.Sequence != 2 || got.Status != payment.StatusProcessing {
		t.Errorf("behind the gap: %+v", got)
	}
	if got := w.get(fine); got.Sequence != 5 || got.Status != payment.StatusSucceeded {
		t.Errorf("the other key: %+v", got)
	}
	reasons := w.deadLetters()
	if len(reasons) != 3 {
		t.Fatalf("dead letters %q, want g[3], g[4] and l[2]", reasons)
	}
	all := strings.Join(reasons, "\n")
	for _, want := range []string{"has sequence 4 and " + gap.ids.PaymentID + " is at sequence 2", "has sequence 3 and " + late.ids.PaymentID + " is at sequence 0"} {
		if !strings.Contains(all, want) {
			t.Errorf("no reason says %q:\n%s", want, all)
		}
	}
	w.apply(g[2]) // what was missing closes the gap
	if got := w.get(gap); got.Sequence != 5 || got.Status != payment.StatusSucceeded {
		t.Errorf("after the gap was closed: %+v", got)
	}
	if reasons := w.deadLetters(); len(reasons) != 1 {
		t.Errorf("dead letters %q, want l[2]", reasons)
	}
}

func TestWhatIsNoEventIsADeadLetter(t *testing.T) {
	header := func(name, value string) func(*inbox.Message) {
		return func(m *inbox.Message) { m.Headers[name] = value }
	}
	replace := func(old, with string) func(*inbox.Message) {
		return func(m *inbox.Message) {
			if !bytes.Contains(m.Value, []byte(old)) {
				panic("the event has no " + old)
			}
			m.Value = bytes.ReplaceAll(m.Value, []byte(old), []byte(with))
		}
	}
	cases := map[string]struct {
		spoil func(*inbox.Message)
		want  string
	}{
		"no JSON":               {func(m *inbox.Message) { m.Value = []byte("\x00\xff{") }, "not an event's data"},
		"no value":              {func(m *inbox.Message) { m.Value = nil }, "not an event's data"},
		"a NUL in the data":     {replace("A-1001", `A\u0000`), "control characters"},
		"no sequence":           {header("ce_sequence", ""), "ce_sequence"},
		"sequence 0":            {header("ce_sequence", "0"), "ce_sequence"},
		"a sequence too far":    {header("ce_sequence", "9223372036854775808"), "ce_sequence"},
		"placed at sequence 2":  {header("ce_sequence", "2"), "cannot have sequence 2"},
		"other at sequence 1":   {header("ce_type", "stock.reserved"), "cannot have sequence 1"},
		"no type":               {header("ce_type", ""), "ce_type"},
		"no time":               {header("ce_time", "yesterday"), "ce_time"},
		"no id of a payment":    {replace(`"pay_`, `"pax_`), "payment_id"},
		"an unknown status":     {replace("processing", "paid"), "status"},
		"an order of no amount": {replace(`"amount":4998`, `"amount":0`), "/amount"},
		"a sum that is wrong":   {replace(`"quantity":2`, `"quantity":3`), "sum of the lines"},
		"a currency of none":    {replace("EUR", "XXX"), "currency"},
		"no order":              {replace(`"placed"`, `"plaved"`), "no placed"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			bad, good := w.order(w.merchant()), w.order(w.merchant())
			m := bad.placed()
			c.spoil(&m)
			w.apply(m, good.placed())
			if reasons := w.deadLetters(); len(reasons) != 1 || !strings.Contains(reasons[0], c.want) {
				t.Errorf("dead letters for %q, want one reason with %q", reasons, c.want)
			}
			if got := w.get(good); got.Sequence != 1 {
				t.Errorf("the other key: %+v", got)
			}
			if rows := w.contents(); len(rows) != 2 {
				t.Errorf("rows of the bad event: %q", rows)
			}
		})
	}
}

func TestAnEventThatNamesAnotherOrdersPaymentIsADeadLetter(t *testing.T) {
	w := newWorld(t)
	m := w.merchant()
	a, b := w.order(m), w.order(m)
	w.apply(a.placed(), b.placed())
	b.ids.PaymentID = a.ids.PaymentID
	w.apply(b.event(payment.EventOrderFailed, payment.StatusFailed, nil))
	if got := w.get(a); got.Sequence != 1 || got.Status != payment.StatusProcessing {
		t.Errorf("row = %+v", got)
	}
	if reasons := w.deadLetters(); len(reasons) != 1 || !strings.Contains(reasons[0], "names the payment of order") {
		t.Errorf("dead letters: %q", reasons)
	}
}

// The evolution rule of docs/events: members and types are added.
func TestEventsOfALaterVersionAreTaken(t *testing.T) {
	w := newWorld(t)
	o := w.order(w.merchant())
	placed := o.placed()
	placed.Value = bytes.Replace(placed.Value, []byte(`{"merchant_id"`), []byte(`{"gift":{"wrap":true},"merchant_id"`), 1)
	unknown := o.event("loyalty.credited", "delighted", func(d *payment.EventData) {
		d.Failure = &payment.Failure{Code: "x", Step: "y", Message: "z"}
		d.Captured = &payment.CapturedData{Amount: -1}
	})
	w.apply(placed)
	want := w.get(o)
	want.Sequence = 2
	w.apply(unknown)
	same(t, "after an unknown type", w.get(o), want)
	w.apply(o.event(payment.EventStockReserved, payment.StatusProcessing, nil))
	same(t, "dead letters", w.deadLetters(), []string{})
	if got := w.get(o); got.Sequence != 3 || got.Status != payment.StatusProcessing || got.Failure != nil || got.AmountCaptured != 0 {
		t.Errorf("row = %+v", got)
	}
	var data []byte
	if err := w.pool.QueryRow(t.Context(), `SELECT data FROM payment_timeline WHERE sequence = 1`).Scan(&data); err != nil {
		t.Fatal(err)
	}
	var members struct {
		Gift   json.RawMessage
		Placed struct{ Customer map[string]any }
	}
	if err := json.Unmarshal(data, &members); err != nil {
		t.Fatal(err)
	}
	same(t, "unknown member", string(members.Gift), `{"wrap": true}`)
	same(t, "customer in the timeline", members.Placed.Customer, map[string]any{"reference": "cust-42"})
}
