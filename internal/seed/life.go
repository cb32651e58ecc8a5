package seed

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"payments/internal/payment"
)

// skus of each merchant.
const skus = 20

type merchant struct {
	id        string
	currency  string
	customers int // grows with the merchant's share
	orders    int // so far
}

// life is one ended payment.
type life struct {
	order              payment.Order
	merchantID         string
	orderID, paymentID string
	sagaID             string
	status             payment.Status
	failure            payment.Failure // of a failed one
	stockRejected      bool            // nothing was ever reserved
	events             []payment.EventType
	refund             refund
	createdAt, endedAt time.Time
	updatedAt          time.Time // the refund's, where there is one
}

type refund struct {
	id, sagaID string // empty: none
	amount     int64
}

// generator is for one goroutine. The same seed makes the same payments.
type generator struct {
	random    *rand.Rand
	now       time.Time
	ids       payment.Generator
	merchants []merchant
	shares    []float64 // cumulative
}

func newGenerator(seed uint64, merchants int, begin time.Time) *generator {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i)) //nolint:gosec // a byte of it each
	}
	source := rand.NewChaCha8(key)
	g := &generator{random: rand.New(source), now: begin} //nolint:gosec // the same number makes the same payments
	g.ids = payment.Generator{Now: func() time.Time { return g.now }, Random: source}
	total := 0.0
	for rank := range merchants {
		total += 1 / float64(rank+1) // Zipf: the second has half of the first
		g.shares = append(g.shares, total)
		currency := "EUR"
		switch rank % 7 {
		case 3:
			currency = "USD"
		case 5:
			currency = "JPY"
		}
		g.merchants = append(g.merchants, merchant{id: g.ids.New(payment.PrefixMerchant), currency: currency})
	}
	return g
}

func (g *generator) size(payments int) {
	total := g.shares[len(g.shares)-1]
	for i := range g.merchants {
		g.merchants[i].customers = max(int(float64(payments)/float64(i+1)/total/8), 3)
	}
}

// methods and how often each is used, of a hundred.
var methods = []struct {
	token string
	share int
}{
	{"pm_card_visa", 55}, {"pm_card_mastercard", 25}, {"pm_sepa_debit", 12}, {"pm_card_amex", 8},
}

// next is the payment of this moment.
func (g *generator) next(at time.Time) (life, error) {
	g.now = at
	i, _ := slices.BinarySearch(g.shares, g.random.Float64()*g.shares[len(g.shares)-1])
	m := &g.merchants[min(i, len(g.merchants)-1)]
	m.orders++
	l := life{
		merchantID: m.id, orderID: g.ids.New(payment.PrefixOrder), paymentID: g.ids.New(payment.PrefixPayment), sagaID: g.ids.New(payment.PrefixSaga),
		createdAt: at, endedAt: at.Add(time.Duration(200+g.random.IntN(1800)) * time.Millisecond),
	}
	draft := payment.Draft{
		Currency:       m.currency,
		OrderReference: "A-" + strconv.Itoa(1000+m.orders),
		// Few customers have many of the payments.
		CustomerReference: "cust-" + strconv.Itoa(1+int(float64(m.customers)*math.Pow(g.random.Float64(), 3))),
	}
	if g.random.IntN(20) == 0 {
		draft.Currency = "GBP"
	}
	of := g.random.IntN(100)
	for _, method := range methods {
		if of -= method.share; of < 0 {
			draft.PaymentMethod = method.token
			break
		}
	}
	for n := range 1 + g.random.IntN(10)/7 + g.random.IntN(10)/9 {
		sku := (g.random.IntN(skus) + n) % skus
		line := payment.DraftLine{SKU: skuName(sku), Quantity: int64(1 + g.random.IntN(3)), UnitAmount: int64(190 + 610*sku + g.random.IntN(400))}
		draft.Lines, draft.Amount = append(draft.Lines, line), draft.Amount+line.Quantity*line.UnitAmount
	}
	var err error
	if l.order, err = payment.NewOrder(draft); err != nil {
		return life{}, fmt.Errorf("seed an order: %w", err)
	}
	g.end(&l)
	return l, nil
}

func skuName(n int) string { return fmt.Sprintf("SKU-%02d", n) }

// end decides how the payment ended: of a hundred, 88 are captured and 9 fail.
func (g *generator) end(l *life) {
	placed, reserved := payment.EventOrderPlaced, payment.EventStockReserved
	switch of := g.random.IntN(100); {
	case of < 88:
		l.status = payment.StatusSucceeded
		l.events = []payment.EventType{placed, reserved, payment.EventPaymentAuthorized, payment.EventPaymentCaptured, payment.EventOrderConfirmed}
	case of < 90:
		l.status, l.stockRejected = payment.StatusFailed, true
		l.failure = payment.Failure{Code: "insufficient_stock", Step: "reserve_stock", Message: "There is not enough stock of an article."}
		l.events = []payment.EventType{placed, payment.EventStockRejected, payment.EventOrderFailed}
	case of < 97:
		l.status = payment.StatusFailed
		l.failure = payment.Failure{Code: "card_declined", Step: "authorize_payment", Message: "The card was declined."}
		if of == 96 {
			l.failure.Code, l.failure.Message = "insufficient_funds", "The card has insufficient funds."
		}
		l.events = []payment.EventType{placed, reserved, payment.EventPaymentDeclined, payment.EventStockReleased, payment.EventOrderFailed}
	default:
		l.status = payment.StatusCanceled
		l.events = []payment.EventType{
			placed, reserved, payment.EventPaymentAuthorized, payment.EventPaymentVoided, payment.EventStockReleased, payment.EventOrderCanceled,
		}
	}
	l.updatedAt = l.endedAt
	if l.status == payment.StatusSucceeded && g.random.IntN(20) == 0 {
		l.refund = refund{g.ids.New(payment.PrefixRefund), g.ids.New(payment.PrefixSaga), 1 + g.random.Int64N(l.order.Total().Amount())}
		l.events = append(l.events, payment.EventRefundRequested, payment.EventRefundSucceeded)
		l.updatedAt = l.endedAt.Add(time.Duration(1+g.random.IntN(72)) * time.Hour)
	}
}
