package test

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The walk of the README, and what it does not show: that another merchant sees
// nothing of it.
func TestWalk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parts{})
	s := w.serve(nil)

	won := w.paid(s, "walk-1", order("A-1", "pm_card_visa"))
	if won.Status != "succeeded" || won.Amount != 4998 || won.AmountCaptured != 4998 || won.Failure != nil {
		t.Errorf("paid with pm_card_visa: %+v", won)
	}
	if got, want := w.ledger(won.ID), []string{"authorization succeeded", "capture succeeded"}; !slices.Equal(got, want) {
		t.Errorf("the bank's ledger has %v, want %v", got, want)
	}

	type level struct {
		SKU                    string
		OnHand, Reserved, Sold int64
	}
	stock := func() (l level) {
		t.Helper()
		l.SKU = "TSHIRT-M"
		if err := w.scan(`SELECT on_hand, reserved, sold FROM stock JOIN merchants ON id = merchant_id WHERE name = 'Demo shop' AND sku = $1`,
			[]any{l.SKU}, &l.OnHand, &l.Reserved, &l.Sold); err != nil {
			t.Fatal(err)
		}
		return l
	}
	before := stock()
	if before != (level{"TSHIRT-M", 999_998, 0, 2}) {
		t.Errorf("after two shirts were sold: %+v", before)
	}
	for method, want := range map[string]struct {
		failure, step string
		ledger        []string
	}{
		"pm_card_declined":         {"card_declined", "authorize_payment", []string{"authorization declined"}},
		"pm_card_capture_declined": {"capture_declined", "capture_payment", []string{"authorization succeeded", "capture declined", "void succeeded"}},
	} {
		lost := w.paid(s, "walk-"+method, order("A-"+method, method))
		if lost.Status != "failed" || lost.AmountCaptured != 0 || lost.Failure == nil || lost.Failure.Code != want.failure || lost.Failure.Step != want.step {
			t.Errorf("paid with %s: %+v", method, lost)
		}
		if got := w.ledger(lost.ID); !slices.Equal(got, want.ledger) {
			t.Errorf("after %s the bank's ledger has %v, want %v", method, got, want.ledger)
		}
	}
	if diff := cmp.Diff(before, stock()); diff != "" {
		t.Errorf("the stock of declined payments did not come back: %s", diff)
	}

	w.walkKeys(s, won)
	w.walkQueries(s, won)
	w.audited()
}

// walkKeys repeats walk-1, in all the ways that the contract tells apart.
func (w *world) walkKeys(s *service, won payment) {
	w.t.Helper()
	var answers []answer
	for range 2 {
		a, err := w.post(s, `"walk-1"`, order("A-1", "pm_card_visa"), nil)
		if err != nil {
			w.t.Fatal(err)
		}
		answers = append(answers, a)
		if a.status != http.StatusAccepted || a.header.Get("Idempotent-Replayed") != "true" ||
			a.header.Get("Location") != "/v1/payments/"+won.ID || decode[payment](w.t, a).Status != "processing" {
			w.t.Errorf("replay: %d %v %s", a.status, a.header, a.body)
		}
	}
	if !bytes.Equal(answers[0].body, answers[1].body) {
		w.t.Errorf("replays differ:\n%s\n%s", answers[0].body, answers[1].body)
	}
	again := w.paid(s, "walk-1", order("A-1", "pm_card_visa"))
	if diff := cmp.Diff(won, again); diff != "" {
		w.t.Errorf("the replay that waits shows another outcome: %s", diff)
	}
	for _, c := range []struct {
		about, key, body, code string
		status                 int
	}{
		{"another body under the key", "walk-1", order("A-2", "pm_card_visa"), "idempotency_key_reused", http.StatusUnprocessableEntity},
		{"no key", "", order("A-3", "pm_card_visa"), "idempotency_key_missing", http.StatusBadRequest},
		{"the paid order under another key", "walk-2", order("A-1", "pm_card_visa"), "order_already_paid", http.StatusConflict},
	} {
		a, err := w.post(s, c.key, c.body, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		if p := decode[problem](w.t, a); a.status != c.status || p.Code != c.code || p.RequestID == "" ||
			p.RequestID != a.header.Get("Request-Id") || a.header.Get("Content-Type") != "application/problem+json" {
			w.t.Errorf("%s: %d %s", c.about, a.status, a.body)
		}
	}
	// The declined order may be paid by another card.
	if p := w.paid(s, "walk-3", order("A-pm_card_declined", "pm_card_visa")); p.Status != "succeeded" {
		w.t.Errorf("a failed order, paid again: %+v", p)
	}
}

func (w *world) walkQueries(s *service, won payment) {
	w.t.Helper()
	if diff := cmp.Diff(won, read[payment](w, s.url+"/v1/payments/"+won.ID)); diff != "" {
		w.t.Errorf("GET one: %s", diff)
	}
	var types []string
	for i, e := range read[list[entry]](w, s.url+"/v1/payments/"+won.ID+"/timeline").Data {
		types = append(types, e.Type)
		if e.Sequence != int64(i+1) || len(e.Attempts) == 0 && i > 0 {
			w.t.Errorf("entry %d of the timeline: %+v", i+1, e)
		}
	}
	if want := []string{"order.placed", "stock.reserved", "payment.authorized", "payment.captured", "order.confirmed"}; !slices.Equal(types, want) {
		w.t.Errorf("the timeline has %v, want %v", types, want)
	}

	all := read[list[payment]](w, s.url+"/v1/payments?limit=100").Data
	if len(all) != 4 || !slices.IsSortedFunc(all, func(a, b payment) int { return strings.Compare(b.ID, a.ID) }) {
		w.t.Errorf("the list has %d payments, want 4, newest first: %+v", len(all), all)
	}
	var paged []payment
	query := "/v1/payments?customer=cust-42&currency=EUR&status=succeeded&limit=1"
	for next := query; next != ""; {
		page := read[list[payment]](w, s.url+next)
		paged = append(paged, page.Data...)
		if next = ""; page.HasMore && page.NextCursor != nil && len(paged) < 10 {
			next = query + "&cursor=" + url.QueryEscape(*page.NextCursor)
		}
	}
	succeeded := slices.DeleteFunc(all, func(p payment) bool { return p.Status != "succeeded" })
	if diff := cmp.Diff(succeeded, paged); diff != "" || len(paged) != 2 {
		w.t.Errorf("page by page came other succeeded payments: %s", diff)
	}
	for _, none := range []string{"order=A-9", "currency=USD", "customer=cust-4", "status=canceled", "created_to=2020-01-01T00:00:00Z"} {
		if got := read[list[payment]](w, s.url+"/v1/payments?"+none).Data; len(got) != 0 {
			w.t.Errorf("with %s the list has %+v", none, got)
		}
	}

	other := w.vars["PAYMENTS_API_KEY_2"]
	for _, path := range []string{"/v1/payments/" + won.ID, "/v1/payments/" + won.ID + "/timeline"} {
		a, err := w.get(s.url+path, other)
		if err != nil {
			w.t.Fatal(err)
		}
		if a.status != http.StatusNotFound || decode[problem](w.t, a).Code != "not_found" {
			w.t.Errorf("another merchant's GET %s: %d %s", path, a.status, a.body)
		}
	}
	a, err := w.get(s.url+"/v1/payments", other)
	if err != nil {
		w.t.Fatal(err)
	}
	if l := decode[list[payment]](w.t, a); a.status != http.StatusOK || len(l.Data) != 0 {
		w.t.Errorf("another merchant's list: %d %s", a.status, a.body)
	}
}
