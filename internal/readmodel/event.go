package readmodel

import (
	"errors"
	"fmt"
	"slices"

	"payments/internal/inbox"
	"payments/internal/payment"
)

// event is one of the log, as the projector applies it.
type event struct {
	payment.Event
	known bool // false: of a later version of this service
	raw   []byte
}

func decode(m inbox.Message) (e event, err error) {
	if e.Event, err = payment.ReadEvent(m.Headers, m.Value); err != nil {
		return e, err
	}
	e.raw, e.known = m.Value, slices.Contains(payment.EventTypes, e.Type)
	if e.known {
		return e, e.check()
	}
	return e, nil
}

// endsReview reports whether the payment is under review no more after the event, and has
// not failed: what was shown as its failure is none.
func (e event) endsReview() bool {
	return e.Type == payment.EventOrderConfirmed || e.Type == payment.EventOrderCanceled ||
		e.Type == payment.EventPaymentAuthorized && e.Data.Status == payment.StatusRequiresCapture
}

// check holds the data to the rules of the domain: the log is one more way in.
func (e event) check() error {
	if _, ok := payment.ParseStatus(string(e.Data.Status)); !ok {
		return errors.New("the data's status is not a payment's")
	}
	if c := e.Data.Captured; c != nil && (c.Amount < 1 || c.Amount > payment.MaxAmount) {
		return errors.New("the data's captured.amount is out of range")
	}
	if r := e.Data.Refund; r != nil && (!payment.ValidID(payment.PrefixRefund, r.ID) || r.Amount < 1 || r.Amount > payment.MaxAmount) {
		return errors.New("the data's refund has no valid id and amount")
	}
	if d := e.Data.Dispute; d != nil {
		if _, ok := payment.ParseDisputeStatus(string(d.Status)); !ok || !payment.ValidID(payment.PrefixDispute, d.ID) || d.Amount < 0 || d.Amount > payment.MaxAmount {
			return errors.New("the data's dispute has no valid id, status and amount")
		}
	}
	if (e.Type == payment.EventOrderPlaced) != (e.Sequence == 1) {
		return fmt.Errorf("%s cannot have sequence %d", e.Type, e.Sequence)
	}
	if e.Type != payment.EventOrderPlaced {
		return nil
	}
	p := e.Data.Placed
	if p == nil {
		return errors.New("the data of order.placed has no placed")
	}
	draft := payment.Draft{
		Amount: p.Amount, Currency: p.Currency, PaymentMethod: p.PaymentMethod,
		CustomerReference: p.Customer.Reference, OrderReference: p.Reference, CaptureMethod: string(p.CaptureMethod),
	}
	for _, l := range p.Lines {
		draft.Lines = append(draft.Lines, payment.DraftLine(l))
	}
	_, err := payment.StoredOrder(draft)
	return err
}
