package order_test

import (
	"errors"
	"slices"
	"testing"

	"payments/internal/order"
	"payments/internal/payment"
)

func TestEveryPaymentMethodEndsAsItShould(t *testing.T) {
	won := []string{"order.placed", "stock.reserved", "payment.authorized", "payment.captured", "order.confirmed"}
	declined := []string{"order.placed", "stock.reserved", "payment.declined", "stock.released", "order.failed"}
	for method, want := range map[string]struct {
		status string
		events []string
	}{
		"pm_card_visa":               {"succeeded", won},
		"pm_card_declined":           {"failed", declined},
		"pm_card_insufficient_funds": {"failed", declined},
		"pm_card_capture_declined": {"failed", []string{
			"order.placed", "stock.reserved", "payment.authorized", "payment.declined", "payment.voided", "stock.released", "order.failed",
		}},
		"pm_card_timeout_applied": {"succeeded", won},
		"pm_card_timeout_lost":    {"succeeded", won},
		"pm_card_flaky":           {"succeeded", won},
	} {
		t.Run(method, func(t *testing.T) {
			w := newWorld(t)
			id := w.placed(method, "")
			w.settle()
			if status := w.status(id); status != want.status || !slices.Equal(w.events(id), want.events) {
				t.Fatalf("got %s after %v, want %s after %v", status, w.events(id), want.status, want.events)
			}
			stock, err := w.orders.Stock(t.Context(), w.merchant, order.StockLevel{}, 1000)
			if err != nil {
				t.Fatal(err)
			}
			expected := order.StockLevel{MerchantID: w.merchant, SKU: "TSHIRT-M", OnHand: startStock}
			if want.status == "succeeded" {
				expected.OnHand, expected.Sold = startStock-2, 2
			}
			if len(stock) != 1 || stock[0] != expected {
				t.Fatalf("stock is %+v, want %+v", stock, expected)
			}
			if n := w.count(`SELECT count(*) FROM sagas WHERE state NOT IN ('completed', 'compensated')`); n != 0 {
				t.Fatalf("%d sagas did not end", n)
			}
		})
	}
}

func TestNoStockFailsBeforeAnyMoney(t *testing.T) {
	w := newWorld(t)
	id, err := w.place(draft{"pm_card_visa", "A-1", startStock + 1, "", nil})
	if err != nil {
		t.Fatal(err)
	}
	w.settle()
	if got, want := w.events(id), []string{"order.placed", "stock.rejected", "order.failed"}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	if n := w.count(`SELECT count(*) FROM saga_attempts WHERE call <> 'local'`); n != 0 {
		t.Fatalf("%d calls to the provider", n)
	}
}

func TestAnOrderIsPaidOnceAndAFailedOneMayBeTriedAgain(t *testing.T) {
	w := newWorld(t)
	code := func(err error) payment.Code {
		if e, ok := errors.AsType[*payment.Error](err); ok {
			return e.Code
		}
		return ""
	}
	if _, err := w.place(draft{"pm_card_declined", "A-1", 1, "", nil}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.place(draft{"pm_card_visa", "A-1", 1, "", nil}); code(err) != payment.CodeOrderInProgress {
		t.Fatalf("while the first is live: %v", err)
	}
	w.settle()
	if _, err := w.place(draft{"pm_card_visa", "A-1", 1, "", nil}); err != nil {
		t.Fatalf("after the first failed: %v", err)
	}
	w.settle()
	if _, err := w.place(draft{"pm_card_visa", "A-1", 1, "", nil}); code(err) != payment.CodeOrderAlreadyPaid {
		t.Fatalf("after it was paid: %v", err)
	}
}
