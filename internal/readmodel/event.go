package readmodel

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"payments/internal/inbox"
	"payments/internal/payment"
)

// event is a CloudEvent in Kafka's binary mode; docs/events says what it holds.
type event struct {
	id       string
	kind     payment.EventType
	known    bool // false: of a later version of this service
	sequence int64
	at       time.Time
	raw      []byte
	data     payment.EventData
}

// decode tolerates what a later version may add: members, and whole types.
func decode(m inbox.Message) (event, error) {
	e := event{id: m.Headers[inbox.HeaderID], kind: payment.EventType(m.Headers["ce_type"]), raw: m.Value}
	e.known = slices.Contains(payment.EventTypes, e.kind)
	var err error
	if e.sequence, err = strconv.ParseInt(m.Headers["ce_sequence"], 10, 64); err != nil || e.sequence < 1 {
		return e, errors.New("the header ce_sequence is not a positive integer")
	}
	if e.at, err = time.Parse(time.RFC3339Nano, m.Headers["ce_time"]); err != nil {
		return e, errors.New("the header ce_time is not an RFC 3339 time")
	}
	if e.kind == "" {
		return e, errors.New("the header ce_type is missing")
	}
	if err := json.Unmarshal(m.Value, &e.data); err != nil {
		return e, fmt.Errorf("the value is not an event's data: %w", err)
	}
	if !payment.ValidID(payment.PrefixMerchant, e.data.MerchantID) ||
		!payment.ValidID(payment.PrefixOrder, e.data.OrderID) ||
		!payment.ValidID(payment.PrefixPayment, e.data.PaymentID) {
		return e, errors.New("the data has no valid merchant_id, order_id and payment_id")
	}
	if e.known {
		return e, e.check()
	}
	return e, nil
}

// check holds the data to the rules of the domain: the log is one more way in.
func (e event) check() error {
	if _, ok := payment.ParseStatus(string(e.data.Status)); !ok {
		return errors.New("the data's status is not a payment's")
	}
	if c := e.data.Captured; c != nil && (c.Amount < 1 || c.Amount > payment.MaxAmount) {
		return errors.New("the data's captured.amount is out of range")
	}
	if r := e.data.Refund; r != nil && (!payment.ValidID(payment.PrefixRefund, r.ID) || r.Amount < 1 || r.Amount > payment.MaxAmount) {
		return errors.New("the data's refund has no valid id and amount")
	}
	if (e.kind == payment.EventOrderPlaced) != (e.sequence == 1) {
		return fmt.Errorf("%s cannot have sequence %d", e.kind, e.sequence)
	}
	if e.kind != payment.EventOrderPlaced {
		return nil
	}
	p := e.data.Placed
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
	_, err := payment.NewOrder(draft)
	return err
}
