package order_test

import (
	"testing"

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
