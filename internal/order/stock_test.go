package order_test

import (
	"testing"

	"payments/internal/payment"
)

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
