package payment

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func draft() Draft {
	return Draft{
		Amount: 4998, Currency: "EUR", PaymentMethod: "pm_card_visa",
		CustomerReference: "cust-42", CustomerEmail: "ada@example.com", OrderReference: "A-1001",
		Lines: []DraftLine{{SKU: "TSHIRT-M", Quantity: 2, UnitAmount: 2499}},
	}
}

func TestNewOrderNamesEveryRefusedMember(t *testing.T) {
	if _, err := NewOrder(draft()); err != nil {
		t.Fatalf("a valid draft was refused: %v", err)
	}
	for name, c := range map[string]struct {
		change  func(*Draft)
		pointer string
	}{
		"amount zero":            {func(d *Draft) { d.Amount = 0 }, "/amount"},
		"amount above the limit": {func(d *Draft) { d.Amount = MaxAmount + 1 }, "/amount"},
		"amount not the sum":     {func(d *Draft) { d.Amount = 4999 }, "/amount"},
		"currency XXX":           {func(d *Draft) { d.Currency = "XXX" }, "/currency"},
		"currency lower case":    {func(d *Draft) { d.Currency = "eur" }, "/currency"},
		"currency missing":       {func(d *Draft) { d.Currency = "" }, "/currency"},
		"method not a token":     {func(d *Draft) { d.PaymentMethod = "4242424242424242" }, "/payment_method"},
		"method too long":        {func(d *Draft) { d.PaymentMethod = "pm_" + strings.Repeat("a", 62) }, "/payment_method"},
		"customer missing":       {func(d *Draft) { d.CustomerReference = "" }, "/customer/reference"},
		"customer with NUL":      {func(d *Draft) { d.CustomerReference = "a\x00b" }, "/customer/reference"},
		"customer not UTF-8":     {func(d *Draft) { d.CustomerReference = "\xff" }, "/customer/reference"},
		"email with a name":      {func(d *Draft) { d.CustomerEmail = "Ada <ada@example.com>" }, "/customer/email"},
		"reference too long":     {func(d *Draft) { d.OrderReference = strings.Repeat("é", MaxReference+1) }, "/order/reference"},
		"no lines":               {func(d *Draft) { d.Lines = nil }, "/order/lines"},
		"too many lines":         {func(d *Draft) { d.Lines = make([]DraftLine, MaxLines+1) }, "/order/lines"},
		"sku blank":              {func(d *Draft) { d.Lines[0].SKU = "\u00a0" }, "/order/lines/0/sku"},
		"quantity zero":          {func(d *Draft) { d.Lines[0].Quantity = 0 }, "/order/lines/0/quantity"},
		"quantity too large":     {func(d *Draft) { d.Lines[0].Quantity = math.MaxInt64 }, "/order/lines/0/quantity"},
		"price negative":         {func(d *Draft) { d.Lines[0].UnitAmount = -1 }, "/order/lines/0/unit_amount"},
		"lines overflow":         {func(d *Draft) { d.Lines[0] = DraftLine{"A", MaxQuantity, MaxAmount} }, "/order/lines/0"},
	} {
		t.Run(name, func(t *testing.T) {
			d := draft()
			c.change(&d)
			_, err := NewOrder(d)
			var e *Error
			if !errors.As(err, &e) || e.Code != CodeInvalid || len(e.Fields) != 1 || e.Fields[0].Pointer != c.pointer {
				t.Fatalf("got %v, want one violation at %s", err, c.pointer)
			}
		})
	}
}

func TestNewOrderReportsAllViolationsAtOnce(t *testing.T) {
	_, err := NewOrder(Draft{})
	var e *Error
	if !errors.As(err, &e) || len(e.Fields) != 6 {
		t.Fatalf("got %v, want six violations", err)
	}
}

func TestTerminalStatesNeverChange(t *testing.T) {
	for from, next := range transitions {
		for to := range transitions {
			if from.CanBecome(to) && (from.Terminal() || from == to) {
				t.Errorf("%s may become %s", from, to)
			}
		}
		if from.Terminal() != (len(next) == 0) {
			t.Errorf("%s: terminal %v", from, from.Terminal())
		}
	}
	if Status("paid").Terminal() {
		t.Error("an unknown word is terminal")
	}
}
