package api

import (
	"context"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"payments/internal/idempotency"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/readmodel"
)

type paymentRequest struct {
	Amount        *int64  `json:"amount"`
	Currency      *string `json:"currency"`
	PaymentMethod *string `json:"payment_method"`
	CaptureMethod *string `json:"capture_method"` // optional
	Customer      *struct {
		Reference *string `json:"reference"`
		Email     *string `json:"email"` // optional
	} `json:"customer"`
	Order *struct {
		Reference *string        `json:"reference"`
		Lines     *[]lineRequest `json:"lines"`
	} `json:"order"`
}

type lineRequest struct {
	SKU        *string `json:"sku"`
	Quantity   *int64  `json:"quantity"`
	UnitAmount *int64  `json:"unit_amount"`
}

// order is a *payment.Error if the request is refused. before reports that an order with
// these members was accepted before references were business keys.
func (q paymentRequest) order() (o payment.Order, before bool, err error) {
	var f fields
	d := payment.Draft{
		Amount: take(&f, q.Amount, "/amount"), Currency: take(&f, q.Currency, "/currency"),
		PaymentMethod: take(&f, q.PaymentMethod, "/payment_method"),
	}
	if q.CaptureMethod != nil {
		d.CaptureMethod = *q.CaptureMethod
		if d.CaptureMethod == "" { // for the domain it would be automatic
			f = append(f, payment.FieldError{Pointer: "/capture_method", Code: "capture_method_invalid", Message: "must be automatic or manual"})
		}
	}
	if q.Customer == nil {
		take(&f, q.Customer, "/customer")
	} else {
		d.CustomerReference = take(&f, q.Customer.Reference, "/customer/reference")
		if email := q.Customer.Email; email != nil {
			d.CustomerEmail = *email
			if *email == "" { // for the domain it would be none
				f = append(f, payment.FieldError{Pointer: "/customer/email", Code: "email_invalid", Message: "must not be empty"})
			}
		}
	}
	if q.Order == nil {
		take(&f, q.Order, "/order")
	} else {
		d.OrderReference = take(&f, q.Order.Reference, "/order/reference")
		for i, l := range take(&f, q.Order.Lines, "/order/lines") {
			if i > payment.MaxLines {
				break // one too many is enough to be refused
			}
			at := "/order/lines/" + strconv.Itoa(i)
			d.Lines = append(d.Lines, payment.DraftLine{
				SKU: take(&f, l.SKU, at+"/sku"), Quantity: take(&f, l.Quantity, at+"/quantity"),
				UnitAmount: take(&f, l.UnitAmount, at+"/unit_amount"),
			})
		}
	}
	o, err = payment.NewOrder(d)
	if err != nil && len(f) == 0 {
		_, was := payment.StoredOrder(d)
		before = was == nil
	}
	if err := f.merge(err); err != nil {
		return payment.Order{}, before, err
	}
	return o, before, f.err()
}

func (s *server) createPayment(ctx context.Context, c *call) error {
	var q paymentRequest
	request, err := c.keyed(&q)
	if err != nil {
		return err
	}
	if request.MerchantID == "" {
		return payment.Errorf(payment.CodeForbidden, "This is done with a merchant's API key.")
	}
	o, before, refusal := q.order()
	if refusal != nil && !before {
		return refusal
	}
	placing, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if refusal != nil { // the same bytes replay what was accepted
		resp, kept, err := s.Orders.Kept(placing, request)
		if err != nil || !kept {
			return refusal
		}
		c.w.payment = resp.ResourceID
		return s.unseal(c, request, resp, true)
	}
	resp, replayed, err := s.Orders.Place(placing, request, o, func(p order.Placed) (idempotency.Response, error) {
		return s.seal(request, p.PaymentID, "/v1/payments/"+p.PaymentID, committed(p.MerchantID, p.PaymentID, 1), placedResource(p))
	})
	if err != nil {
		return err
	}
	c.placed(!replayed) // before the wait for its outcome
	c.w.payment = resp.ResourceID
	if settled, ok := s.outcome(ctx, c, request.MerchantID, resp.ResourceID, payment.Status.Settled, replayed); ok {
		s.tellReplay(c, resp, replayed)
		return s.ended(ctx, c, settled)
	}
	return s.unseal(c, request, resp, replayed)
}

// readableWithin is how long an outcome is held back for the read model to show it too, so
// that a client that reads next without a Read-After finds the same.
const readableWithin = time.Second

// lastRead is how long the payment may be read when the wait for its outcome is over.
const lastRead = 2 * time.Second

// outcome waits, as long as was preferred, until the payment's status in the write model is
// what is waited for: neither a projector that lags nor a broker that is away hides it. What
// was asked is committed by now: whatever goes wrong here, the answer without an outcome is still
// true. So is the answer of a caller that has no slot to wait in: it looks once. A preference allows
// that (RFC 7240, section 2), and a refusal would say that nothing was done. An outcome that may be
// old, as that of a replay, is read first.
func (s *server) outcome(ctx context.Context, c *call, merchantID, paymentID string, done func(payment.Status) bool, old bool) (order.Payment, bool) {
	if c.wait == 0 {
		return order.Payment{}, false
	}
	over := time.Now().Add(c.wait)
	waiting, cancel := context.WithDeadline(ctx, over.Add(lastRead))
	defer cancel()
	wait := c.wait
	if release, err := s.hold(c, heldWait); err != nil {
		wait = 0
	} else {
		defer release()
		c.w.Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(c.wait/time.Second)))
	}
	if old && wait > 0 {
		p, ended, err := s.Orders.WaitFor(waiting, merchantID, paymentID, 0, done)
		if err == nil && ended {
			if passed, err := s.Payments.Passed(waiting, c.scope, position(p)); err == nil && passed {
				return p, true
			}
		}
	}
	waiting, open := s.untilClosing(waiting)
	defer open()
	p, ended, err := s.Orders.WaitFor(waiting, merchantID, paymentID, wait, done)
	if err != nil {
		s.Log.WarnContext(ctx, "no outcome to wait for", "request_id", c.w.requestID, "payment", paymentID, "error", err)
	}
	if err != nil || !ended {
		return order.Payment{}, false
	}
	if wait > 0 {
		readable, cancel := context.WithTimeout(waiting, min(readableWithin, time.Until(over)))
		defer cancel()
		_ = s.Payments.AwaitPosition(readable, c.scope, position(p)) // the answer's Read-After does the same for longer
	}
	return p, true
}

// ended answers the outcome of a command.
func (s *server) ended(ctx context.Context, c *call, p order.Payment) error {
	r, err := s.viewResource(c, readmodel.Payment(p))
	if err != nil {
		return err
	}
	c.w.Header().Set(headerReadAfter, position(p).Token())
	return s.ok(ctx, c, r)
}

// maxTimeline is what a timeline without limit holds at most. Clients from before there were
// pages asked for all of it, and few payments have more.
const maxTimeline = 1000

func (s *server) getTimeline(ctx context.Context, c *call) error {
	limit, err := c.limit(maxTimeline, maxPage)
	if err != nil {
		return err
	}
	after, err := s.afterSequence(c)
	if err != nil {
		return err
	}
	id := chi.URLParam(c.r, "id")
	var entries []readmodel.Entry
	err = s.projected(ctx, c, id, func() (err error) {
		entries, err = s.Payments.Timeline(ctx, c.scope, id, after, limit+1)
		return err
	})
	if err != nil {
		return err
	}
	return s.ok(ctx, c, pageOf(s, c, entries, limit, newEntryResource, func(e readmodel.Entry) string { return strconv.FormatInt(e.Sequence, 10) }))
}

// afterSequence is the sequence that the cursor stands at, 0 without one.
func (s *server) afterSequence(c *call) (int64, error) {
	cursor, err := s.after(c)
	if err != nil || cursor == nil {
		return 0, err
	}
	if len(cursor) != 1 {
		return 0, cursorInvalid()
	}
	n, err := strconv.ParseInt(cursor[0], 10, 64)
	if err != nil || n < 1 {
		return 0, cursorInvalid()
	}
	return n, nil
}
