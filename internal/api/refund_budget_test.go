package api

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"payments/internal/payment"
	"payments/internal/postgres"
)

// paid is a captured payment of 5,000.00 in the currency.
func (w *world) paid(reference, currency string) (path string) {
	w.t.Helper()
	body := strings.NewReplacer("4998", "500000", "2499", "250000", "EUR", currency, "A-1001", reference).Replace(good)
	a := w.post(w.merchant, body, key("paid-"+reference)...)
	if a.status != 202 {
		w.t.Fatalf("%d %s", a.status, a.body)
	}
	id := a.at(w.t, "id").(string)
	w.project()
	w.make(id, payment.StatusSucceeded)
	return "/v1/payments/" + id + "/refunds"
}

func (w *world) refund(path, as string, amount int64) answer {
	return w.do("POST", path, as, fmt.Sprintf(`{"amount": %d}`, amount), key(w.ids.New("req"))...)
}

// given is what persons of the service gave back, in minor units.
func (w *world) given() (sum int64) {
	w.t.Helper()
	if err := w.pool.QueryRow(w.t.Context(), `
		SELECT coalesce(sum(r.amount::bigint), 0)::bigint FROM refunds r JOIN staff_refunds s ON s.refund_id = r.id WHERE r.status <> 'failed'`).Scan(&sum); err != nil {
		w.t.Fatal(err)
	}
	return sum
}

func (w *world) asOwner(sql string) error {
	pool, err := postgres.Open(w.t.Context(), w.owner)
	if err != nil {
		return err
	}
	defer pool.Close()
	_, err = pool.Exec(w.t.Context(), sql)
	return err
}

// Support's limit is a budget of the payment, whoever of support asks and at whatever moment.
func TestSupportCannotPassThePaymentsBudget(t *testing.T) {
	w := newWorld(t)
	_, second := w.made(`{"mode":"test","role":"support","holder":"sue"}`, key("sue")...)
	path := w.paid("B-1", "EUR")
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() { w.refund(path, []string{w.support, second}[i%2], 10_000) })
	}
	wg.Wait()
	if sum := w.given(); sum != 10_000 {
		t.Errorf("ten refunds of 100 EUR at once gave %d back", sum)
	}
	w.refused("one more", w.refund(path, second, 1), 403, payment.CodeForbidden)
	w.refused("all that is left", w.do("POST", path, w.support, `{}`, key("all")...), 403, payment.CodeForbidden)
	if a := w.refund(path, w.merchant, 20_000); a.status != 202 {
		t.Errorf("the merchant: %d %s", a.status, a.body)
	}
	// What the merchant gave back is not support's, and a small payment is refunded in parts.
	parts := w.paid("B-2", "EUR")
	for range 4 {
		if a := w.refund(parts, w.support, 2_500); a.status != 202 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	w.refused("a fifth part", w.refund(parts, w.support, 1), 403, payment.CodeForbidden)
	if other := w.paid("B-3", "USD"); w.refund(other, w.support, 10_000).status != 202 {
		t.Error("another payment has a budget of its own")
	}
	if yen := w.paid("B-4", "KWD"); w.refund(yen, w.support, 1).status != 403 {
		t.Error("a currency without a budget")
	}
}

// The budget of a person and day spans payments, merchants and the person's keys.
func TestSupportCannotPassThePersonsBudget(t *testing.T) {
	w := newWorld(t)
	_, other := w.made(`{"mode":"test","role":"support","holder":"SUE"}`, key("again")...)
	_, sue := w.made(`{"mode":"test","role":"support","holder":"sue"}`, key("sue")...)
	var paths []string
	for i := range 14 {
		paths = append(paths, w.paid(fmt.Sprintf("P-%d", i), "EUR"))
	}
	var wg sync.WaitGroup
	for i, path := range paths[:13] {
		wg.Go(func() { w.refund(path, []string{sue, other}[i%2], 10_000) })
	}
	wg.Wait()
	if sum := w.given(); sum != 100_000 {
		t.Errorf("13 refunds of 100 EUR by one person gave %d back", sum)
	}
	w.refused("today", w.refund(paths[13], sue, 1), 403, payment.CodeForbidden)
	if a := w.refund(paths[13], w.support, 100); a.status != 202 {
		t.Errorf("another person: %d %s", a.status, a.body)
	}
	if a := w.refund(w.paid("P-usd", "USD"), sue, 10_000); a.status != 202 {
		t.Errorf("another currency: %d %s", a.status, a.body)
	}
	// The next day.
	if err := w.asOwner(`
		ALTER TABLE staff_refunds DISABLE TRIGGER staff_refunds_append_only;
		UPDATE staff_refunds SET day = day - 1;
		ALTER TABLE staff_refunds ENABLE TRIGGER staff_refunds_append_only`); err != nil {
		t.Fatal(err)
	}
	if a := w.refund(paths[13], sue, 1); a.status != 202 {
		t.Errorf("the next day: %d %s", a.status, a.body)
	}
}

// A repetition is the same refund, and one that failed gave nothing back.
func TestTheBudgetCountsEachRefundOnce(t *testing.T) {
	w := newWorld(t)
	path := w.paid("C-1", "EUR")
	for range 3 {
		if a := w.do("POST", path, w.support, `{"amount": 6000}`, key("same")...); a.status != 202 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if a := w.refund(path, w.support, 4_000); a.status != 202 {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.refused("over", w.refund(path, w.support, 1), 403, payment.CodeForbidden)
	if _, err := w.pool.Exec(t.Context(), `UPDATE refunds SET status = 'failed', failure_code = 'x' WHERE amount = 4000`); err != nil {
		t.Fatal(err)
	}
	w.refused("over", w.refund(path, w.support, 4_001), 403, payment.CodeForbidden)
	if a := w.refund(path, w.support, 4_000); a.status != 202 {
		t.Errorf("after a failure: %d %s", a.status, a.body)
	}
	// A refused one leaves nothing.
	var kept int
	if err := w.pool.QueryRow(t.Context(), `SELECT count(*) FROM staff_refunds`).Scan(&kept); err != nil || kept != 3 {
		t.Errorf("%d rows (%v)", kept, err)
	}
}
