package payment

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
)

// Limits of an order. The database repeats each as a constraint.
const (
	MaxLines         = 100
	MaxQuantity      = 1_000_000
	MaxReference     = 64
	MaxEmail         = 254
	MaxSKU           = 64
	maxPaymentMethod = 64
)

// Draft is an order as a client asks for it: nothing in it is checked yet.
type Draft struct {
	Amount            int64
	Currency          string
	PaymentMethod     string
	CustomerReference string
	CustomerEmail     string // optional
	OrderReference    string
	CaptureMethod     string // empty is automatic
	Lines             []DraftLine
}

// DraftLine is an unchecked line of a Draft; UnitAmount is in minor units.
type DraftLine struct {
	SKU        string
	Quantity   int64
	UnitAmount int64
}

// Order is what a merchant's customer pays for. Its total is the sum of its lines.
type Order struct {
	total             Money
	paymentMethod     string
	customerReference string
	customerEmail     string
	reference         string
	captureMethod     CaptureMethod
	lines             []Line
}

// Line is a quantity of one article at one price.
type Line struct {
	sku        string
	quantity   int64
	unitAmount int64
}

func (o Order) Total() Money              { return o.total }
func (o Order) PaymentMethod() string     { return o.paymentMethod }
func (o Order) CustomerReference() string { return o.customerReference }

// CustomerEmail is empty when the client gave none.
func (o Order) CustomerEmail() string        { return o.customerEmail }
func (o Order) Reference() string            { return o.reference }
func (o Order) CaptureMethod() CaptureMethod { return o.captureMethod }
func (o Order) Lines() []Line                { return o.lines }

func (l Line) SKU() string     { return l.sku }
func (l Line) Quantity() int64 { return l.quantity }

// UnitAmount is in minor units of the order's currency.
func (l Line) UnitAmount() int64 { return l.unitAmount }

// NewOrder checks each member alone and then the order as a whole. Its error is
// an *Error with one FieldError for each violation, by JSON pointer into the
// body of POST /v1/payments. References and SKUs become business keys.
func NewOrder(d Draft) (Order, error) { return newOrder(d, BusinessKey) }

// StoredOrder checks an order that was accepted before: one of an event or of a stored
// row. Its references are kept as they are, because those from before there were
// business keys stay as they were written.
func StoredOrder(d Draft) (Order, error) {
	return newOrder(d, func(s string, limit int) (string, error) { return s, validText(s, limit) })
}

func newOrder(d Draft, key func(s string, limit int) (string, error)) (Order, error) {
	var v violations
	currency, err := ParseCurrency(d.Currency)
	if err != nil {
		v.add("/currency", "currency_invalid", "%v", err)
	}
	if d.Amount < 1 || d.Amount > MaxAmount {
		v.add("/amount", "out_of_range", "must be from 1 to %d minor units", MaxAmount)
	}
	if err := validPaymentMethod(d.PaymentMethod); err != nil {
		v.add("/payment_method", "payment_method_invalid", "%v", err)
	}
	method, ok := ParseCaptureMethod(cmp.Or(d.CaptureMethod, string(CaptureAutomatic)))
	if !ok {
		v.add("/capture_method", "capture_method_invalid", "must be automatic or manual")
	}
	customer, err := key(d.CustomerReference, MaxReference)
	if err != nil {
		v.add("/customer/reference", "text_invalid", "%v", err)
	}
	if err := validEmail(d.CustomerEmail); d.CustomerEmail != "" && err != nil {
		v.add("/customer/email", "email_invalid", "%v", err)
	}
	reference, err := key(d.OrderReference, MaxReference)
	if err != nil {
		v.add("/order/reference", "text_invalid", "%v", err)
	}
	lines, sum := newLines(&v, d.Lines, key)
	if len(v) == 0 && sum != d.Amount {
		v.add("/amount", "amount_mismatch", "must equal the sum of the lines: each quantity times its unit_amount")
	}
	if err := v.err("payment"); err != nil {
		return Order{}, err
	}
	return Order{
		total:             Money{d.Amount, currency},
		paymentMethod:     d.PaymentMethod,
		customerReference: customer,
		customerEmail:     d.CustomerEmail,
		reference:         reference,
		captureMethod:     method,
		lines:             lines,
	}, nil
}

func newLines(v *violations, drafts []DraftLine, key func(s string, limit int) (string, error)) (lines []Line, sum int64) {
	if len(drafts) == 0 || len(drafts) > MaxLines {
		v.add("/order/lines", "out_of_range", "must have 1 to %d lines", MaxLines)
		return nil, 0
	}
	for i, d := range drafts {
		at := fmt.Sprintf("/order/lines/%d", i)
		sku, err := key(d.SKU, MaxSKU)
		if err != nil {
			v.add(at+"/sku", "sku_invalid", "%v", err)
		}
		if d.Quantity < 1 || d.Quantity > MaxQuantity {
			v.add(at+"/quantity", "out_of_range", "must be from 1 to %d", MaxQuantity)
			continue
		}
		if d.UnitAmount < 0 || d.UnitAmount > MaxAmount {
			v.add(at+"/unit_amount", "out_of_range", "must be from 0 to %d minor units", MaxAmount)
			continue
		}
		// Neither can overflow: 10^6 × 10^12 < 2^63, and the sum is bounded at each line.
		if sum += d.Quantity * d.UnitAmount; sum > MaxAmount {
			v.add(at, "out_of_range", "the lines add up to more than %d minor units", MaxAmount)
			return nil, 0
		}
		lines = append(lines, Line{sku, d.Quantity, d.UnitAmount})
	}
	return lines, sum
}

// validPaymentMethod takes an opaque token of the provider; a card number is not one.
func validPaymentMethod(s string) error {
	name, ok := strings.CutPrefix(s, "pm_")
	if !ok {
		return fmt.Errorf("must be a token of the payment provider that begins with pm_, never a card number")
	}
	return validToken(name, maxPaymentMethod-len("pm_"))
}

// emailForm is a local part, @ and a dot-atom of RFC 5322, in any script (RFC 6531). The local
// part may have dots anywhere: mobile operators in Japan gave out addresses like a..b@ and a.@.
// It has no quotes, comments or address literals, which no customer has. openapi.yaml has the same.
var emailForm = regexp.MustCompile("^" + local + "@" + atom + `(\.` + atom + ")*$")

const (
	atom  = `[^\x00-\x20"(),.:;<>@\[\\\]\x7F-\xA0]+`
	local = `[^\x00-\x20"(),:;<>@\[\\\]\x7F-\xA0]+`
)

func validEmail(s string) error {
	if err := validText(s, MaxEmail); err != nil {
		return err
	}
	if !emailForm.MatchString(s) {
		return fmt.Errorf("must be a bare email address like ada@example.com")
	}
	return nil
}
