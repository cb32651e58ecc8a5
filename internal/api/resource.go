package api

import (
	"fmt"
	"time"

	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/readmodel"
)

// paymentResource is a payment as clients see it: the same members whether it
// was just placed or read from the read model. Amounts are in minor units.
type paymentResource struct {
	ID               string                `json:"id"`
	Object           string                `json:"object"`
	Status           payment.Status        `json:"status"`
	Amount           int64                 `json:"amount"`
	Currency         string                `json:"currency"`
	CurrencyExponent int                   `json:"currency_exponent"`
	AmountCaptured   int64                 `json:"amount_captured"`
	AmountRefunded   int64                 `json:"amount_refunded"`
	PaymentMethod    string                `json:"payment_method"`
	CaptureMethod    payment.CaptureMethod `json:"capture_method"`
	Customer         customerResource      `json:"customer"`
	Order            orderResource         `json:"order"`
	Failure          *payment.Failure      `json:"failure"`
	Disputed         bool                  `json:"disputed"`
	Dispute          *disputeResource      `json:"dispute"`
	CreatedAt        time.Time             `json:"created_at"`
	UpdatedAt        time.Time             `json:"updated_at"`
	// As asked for by expand.
	Timeline *list[entryResource]  `json:"timeline,omitzero"`
	Refunds  *list[refundResource] `json:"refunds,omitzero"`
}

// masked stands for a member that the caller's role does not see.
const masked = "***"

type customerResource struct {
	Reference string  `json:"reference"`
	Email     *string `json:"email"`
}

type orderResource struct {
	ID        string             `json:"id"`
	Reference string             `json:"reference"`
	Lines     []payment.LineData `json:"lines"`
}

const (
	objectPayment = "payment"
)

// list is a page, or all there is. NextCursor is null without more.
type list[T any] struct {
	Object     string  `json:"object"`
	Data       []T     `json:"data"`
	HasMore    bool    `json:"has_more"`
	NextCursor *string `json:"next_cursor"`
	// Of a list that was asked for its count.
	Count *countResource `json:"count,omitzero"`
}

// countResource says whether its value was counted or estimated.
type countResource struct {
	Value int64  `json:"value"`
	Kind  string `json:"kind"` // exact or estimated
	// AtLeast says that there are more than Value.
	AtLeast bool `json:"at_least,omitzero"`
}

func newList[T any](items []T) list[T] { return list[T]{Object: "list", Data: items} }

// listOf shows all of the rows.
func listOf[R, T any](rows []R, show func(R) T) list[T] {
	items := make([]T, len(rows))
	for i, r := range rows {
		items[i] = show(r)
	}
	return newList(items)
}

// pageOf shows the first limit of what was found, which has one more if there is a next page.
// That begins behind the last one shown, at the place that at gives.
func pageOf[R, T any](s *server, c *call, found []R, limit int, show func(R) T, at func(R) string) list[T] {
	page := found[:min(len(found), limit)]
	l := listOf(page, show)
	if l.HasMore = len(found) > limit; l.HasMore {
		l.NextCursor = s.behind(c, at(page[limit-1]))
	}
	return l
}

func placedResource(p order.Placed) paymentResource {
	o := p.Order
	r := paymentResource{
		ID: p.PaymentID, Object: objectPayment, Status: payment.StatusProcessing,
		Amount: o.Total().Amount(), Currency: o.Total().Currency().String(), CurrencyExponent: o.Total().Currency().Exponent(),
		PaymentMethod: o.PaymentMethod(), CaptureMethod: o.CaptureMethod(),
		Customer:  customerResource{Reference: o.CustomerReference()},
		Order:     orderResource{ID: p.OrderID, Reference: o.Reference()},
		CreatedAt: shown(p.CreatedAt), UpdatedAt: shown(p.CreatedAt),
	}
	if email := o.CustomerEmail(); email != "" {
		r.Customer.Email = &email
	}
	for _, l := range o.Lines() {
		r.Order.Lines = append(r.Order.Lines, payment.LineData{SKU: l.SKU(), Quantity: l.Quantity(), UnitAmount: l.UnitAmount()})
	}
	return r
}

func (s *server) viewResource(c *call, p readmodel.Payment) (paymentResource, error) {
	currency, err := payment.ParseCurrency(p.Currency)
	if err != nil {
		return paymentResource{}, fmt.Errorf("currency of %s: %w", p.ID, err)
	}
	r := paymentResource{
		ID: p.ID, Object: objectPayment, Status: p.Status,
		Amount: p.Amount, Currency: p.Currency, CurrencyExponent: currency.Exponent(),
		AmountCaptured: p.AmountCaptured, AmountRefunded: p.AmountRefunded,
		CaptureMethod: p.CaptureMethod,
		Customer:      customerResource{Reference: p.CustomerReference},
		Order:         orderResource{ID: p.OrderID, Reference: p.OrderReference, Lines: p.Lines},
		Failure:       p.Failure,
		Disputed:      p.Dispute.Disputed(), Dispute: newDisputeResource(p.Dispute),
		CreatedAt: shown(p.CreatedAt), UpdatedAt: shown(p.UpdatedAt),
	}
	if r.PaymentMethod, err = s.method(c, p.PaymentMethod, p.PaymentMethodCiphertext, p.ID); err != nil {
		return paymentResource{}, err
	}
	switch {
	case p.CustomerEmailCiphertext == nil:
	case !c.confidential: // not even opened
		hidden := masked
		r.Customer.Email = &hidden
	default:
		email, err := s.Cipher.Decrypt(p.CustomerEmailCiphertext, order.EmailData(p.ID))
		if err != nil {
			return paymentResource{}, fmt.Errorf("customer's address of %s: %w", p.ID, err)
		}
		text := string(email)
		r.Customer.Email = &text
	}
	return r, nil
}

// method is the token that a payment was asked for with, and for those who see no
// more, its fingerprint. It has no ciphertext in a row from before there was one.
func (s *server) method(c *call, fingerprint string, ciphertext []byte, paymentID string) (string, error) {
	switch {
	case c.confidential && ciphertext != nil:
		return s.Methods.Open(ciphertext, paymentID)
	case c.confidential || ciphertext != nil:
		return fingerprint, nil
	}
	return s.Methods.Fingerprints(fingerprint)[0], nil
}

// shown is as precise as Postgres keeps it, so that both models say the same.
func shown(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// utc is shown of what may be missing.
func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := shown(*t)
	return &u
}

// entryResource is one event of the timeline, with the saga's attempts that led to it.
type entryResource struct {
	Object     string                `json:"object"`
	Sequence   int64                 `json:"sequence"`
	Type       payment.EventType     `json:"type"`
	EventID    string                `json:"event_id"`
	OccurredAt time.Time             `json:"occurred_at"`
	Status     payment.Status        `json:"status"`
	Failure    *payment.Failure      `json:"failure"`
	Attempts   []payment.AttemptData `json:"attempts"`
}

func newEntryResource(e readmodel.Entry) entryResource {
	return entryResource{
		Object: "timeline_entry", Sequence: e.Sequence, Type: e.Type, EventID: e.EventID,
		OccurredAt: e.OccurredAt, Status: e.Status, Failure: e.Failure, Attempts: e.Attempts,
	}
}

type refundResource struct {
	ID        string               `json:"id"`
	Object    string               `json:"object"`
	Payment   string               `json:"payment"`
	Amount    int64                `json:"amount"`
	Currency  string               `json:"currency"`
	Reason    *string              `json:"reason"`
	Status    payment.RefundStatus `json:"status"`
	Failure   *failureResource     `json:"failure"`
	CreatedAt time.Time            `json:"created_at"`
	UpdatedAt time.Time            `json:"updated_at"`
}

// failureResource is why a refund failed.
type failureResource struct {
	Code string `json:"code"`
}

func newFailureResource(code string) *failureResource {
	if code == "" {
		return nil
	}
	return &failureResource{code}
}

// disputeResource is the newest dispute of a payment.
type disputeResource struct {
	ID        string                `json:"id"`
	Object    string                `json:"object"`
	Status    payment.DisputeStatus `json:"status"`
	Amount    int64                 `json:"amount"`
	Currency  string                `json:"currency"`
	Reason    string                `json:"reason"`
	RespondBy *time.Time            `json:"respond_by"`
	OpenedAt  time.Time             `json:"opened_at"`
}

func newDisputeResource(d *payment.Dispute) *disputeResource {
	if d == nil {
		return nil
	}
	return &disputeResource{
		ID: d.ID, Object: "dispute", Status: d.Status, Amount: d.Amount, Currency: d.Currency, Reason: d.Reason,
		RespondBy: utc(d.RespondBy), OpenedAt: shown(d.OpenedAt),
	}
}

// given is null for what was not.
func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

type stockResource struct {
	Merchant string `json:"merchant"`
	SKU      string `json:"sku"`
	OnHand   int64  `json:"on_hand"`
	Reserved int64  `json:"reserved"`
	Sold     int64  `json:"sold"`
}
