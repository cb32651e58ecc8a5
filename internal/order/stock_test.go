package order_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"payments/internal/payment"
)

// A merchant with many articles has to learn which one is missing.
func TestAFailureNamesTheSKUs(t *testing.T) {
	w := newWorld(t)
	w.exec(`INSERT INTO stock (merchant_id, sku, received, on_hand) VALUES ($1, 'LAT/78', 1, 1), ($1, 'AB 12', 1, 1)`, w.merchant)
	present := func(sku string, quantity int64) payment.DraftLine {
		return payment.DraftLine{SKU: sku, Quantity: quantity}
	}
	for _, test := range []struct {
		lines []payment.DraftLine
		code  string
		want  string
	}{
		{[]payment.DraftLine{present("LAT/78", 2)}, "insufficient_stock", `There is not enough stock of the SKU "LAT/78".`},
		{[]payment.DraftLine{present("LAT/78", 1), present("AB 12", 1), present("AB 12", 1)}, "insufficient_stock", `There is not enough stock of the SKU "AB 12".`},
		{[]payment.DraftLine{present("AB 12", 3), present("LAT/78", 2)}, "insufficient_stock", `There is not enough stock of the SKU "AB 12", "LAT/78".`},
		{[]payment.DraftLine{present("NONE, OR OTHER", 1), present("LAT/78", 2)}, "unknown_sku", `The merchant has no stock with the SKU "NONE, OR OTHER".`},
		{
			[]payment.DraftLine{present("a", 1), present("b", 1), present("c", 1), present("d", 1), present("e", 1), present("f", 1), present("g", 1)},
			"unknown_sku", `The merchant has no stock with the SKU "a", "b", "c", "d", "e" and 2 more.`,
		},
	} {
		id := w.placed("pm_card_visa", payment.CaptureAutomatic, test.lines...)
		w.settle()
		got := one[string](w, `SELECT failure_code || ': ' || failure_message FROM payments WHERE id = $1`, id)
		if want := test.code + ": " + test.want; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	w.audited()
}

// What is reserved may come back: if as much as may be was on hand besides, stock's
// own rule would refuse the release for ever, and the saga with it.
func TestWhatIsReservedKeepsItsRoom(t *testing.T) {
	w := newWorld(t)
	id := w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	set := func(onHand int64) error {
		stock, err := payment.NewStock("", w.merchant, "TSHIRT-M", onHand)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.orders.SetStock(t.Context(), []payment.Stock{stock})
		return err
	}
	reserved := int64(w.count(`SELECT reserved FROM stock WHERE sku = 'TSHIRT-M'`))
	if reserved == 0 {
		t.Fatal("nothing is reserved")
	}
	if e := refusal(t, set(payment.MaxOnHand-reserved+1)); e.Code != payment.CodeInvalid || len(e.Fields) != 1 || e.Fields[0].Pointer != "/on_hand" {
		t.Errorf("%+v", e)
	}
	if err := set(payment.MaxOnHand - reserved); err != nil {
		t.Fatal(err)
	}
	if _, err := w.orders.Cancel(t.Context(), w.merchant, id); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if got := w.status(id); got != "canceled" {
		t.Errorf("the payment is %s", got)
	}
	w.stockIs(payment.MaxOnHand, 0, 0)
	w.audited()
}

// An article of which there is plenty is read without its lock. All of it is gone by the time
// that a commit writes it: the commit is made again, and the order is refused.
func TestAnArticleThatIsGoneMeanwhileIsNotSold(t *testing.T) {
	w := newWorld(t)
	w.exec(`UPDATE stock SET on_hand = 100000, received = 100000`)
	id := w.placed("pm_card_visa", "")
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), `UPDATE stock SET on_hand = 1, received = 1`); err != nil {
		t.Fatal(err)
	}
	worker := w.worker()
	if _, err := worker.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for w.count(`SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple') AND pid IN (
		SELECT pid FROM pg_stat_activity WHERE datname = current_database())`) == 0 {
		<-look.C
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	worker.Drain()
	w.settle()
	if s := w.status(id); s != "failed" {
		t.Errorf("the payment is %s", s)
	}
	if got := one[string](w, `SELECT on_hand || ' ' || reserved || ' ' || sold FROM stock`); got != "1 0 0" {
		t.Errorf("the stock is %s", got)
	}
	w.audited()
}

// Sixty orders that come at once want twice what there is.
func TestOrdersThatBeginTogetherNeverSellTooMuch(t *testing.T) {
	w := newWorld(t)
	const units, each = 30_000, 1000
	w.exec(`UPDATE stock SET on_hand = $1, received = $1`, units)
	worker := w.begins()
	var clients sync.WaitGroup
	for n := range 2 * units / each {
		clients.Go(func() {
			if _, err := w.place(draft{"pm_card_visa", fmt.Sprint("A-", n), each, "", nil}); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
	worker.Drain()
	w.hand.Store(nil)
	w.settle()
	if got := one[string](w, `SELECT on_hand || ' ' || reserved || ' ' || sold FROM stock`); got != "0 0 30000" {
		t.Errorf("the stock is %s", got)
	}
	w.audited()
}
