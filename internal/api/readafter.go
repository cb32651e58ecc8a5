package api

import (
	"context"
	"errors"

	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/readmodel"
)

// Read your writes. Every POST that is about a payment (payments, cancel, capture,
// refunds) answers with the header Read-After: an opaque token of what it has
// committed; the answer that is stored for its Idempotency-Key keeps the first
// one. A GET of a payment, its timeline, its refunds or the list that carries such
// a Read-After is answered from a state at least that new: it waits for it up to
// 5 s, in a slot of its merchant (slots), and is then refused with 503
// read_after_timeout and Retry-After. That is no 412, since nothing is wrong with
// the request and the same one will succeed: a client, or a proxy, that repeats on
// 503 does right. A text that is no token, or more than one, is a 400. Another
// merchant's token is as if there were none. Other routes leave the header alone.
const headerReadAfter = "Read-After"

// readAfter waits as the request's Read-After asks for.
func (s *server) readAfter(ctx context.Context, c *call) error {
	values := c.r.Header.Values(headerReadAfter)
	if len(values) == 0 {
		return nil
	}
	at, err := readmodel.ParseToken(values[0])
	if len(values) > 1 {
		err = errors.New("more than one")
	}
	if err != nil {
		return payment.Errorf(payment.CodeReadAfterInvalid, "The Read-After header has to be one token, as an answer to a POST gave it.").Because(err)
	}
	return s.await(ctx, c, at)
}

// await waits, in a slot of the caller's, until the position is projected. It takes no slot for
// what is projected already. Errors: codeTooManyHeld, payment.CodeReadAfterTimeout.
func (s *server) await(ctx context.Context, c *call, at readmodel.Position) error {
	passed, err := s.Payments.Passed(ctx, c.scope, at)
	if passed || err != nil {
		return err
	}
	release, err := s.hold(c, heldWait)
	if err != nil {
		return err
	}
	defer release()
	waiting, cancel := s.untilClosing(ctx)
	defer cancel()
	return s.Payments.AwaitPosition(waiting, c.scope, at)
}

// projected runs read, which answers for one payment by its id. A payment that the read model
// does not have may be committed and not projected yet. Then read runs again as if the request
// had brought the Read-After of the payment's POST. So CodeNotFound means that there is no such
// payment, also while the projector is behind.
func (s *server) projected(ctx context.Context, c *call, id string, read func() error) error {
	err := read()
	if !notFound(err) {
		return err
	}
	p, err := s.written(ctx, c, id)
	if err != nil {
		return err
	}
	at := position(p)
	at.Sequence = 1
	if err := s.await(ctx, c, at); err != nil {
		return err
	}
	return read()
}

// written is the payment as the write model has it, within the caller's scope.
func (s *server) written(ctx context.Context, c *call, id string) (order.Payment, error) {
	merchantID, all := c.scope.Merchant()
	if merchantID == "" && !all {
		return order.Payment{}, payment.Errorf(payment.CodeNotFound, "There is no such payment.")
	}
	return s.Orders.Payment(ctx, merchantID, id)
}

func notFound(err error) bool {
	e, ok := errors.AsType[*payment.Error](err)
	return ok && e.Code == payment.CodeNotFound
}

// position is that of the newest event that the payment shows.
func position(p order.Payment) readmodel.Position {
	return readmodel.Position{MerchantID: p.MerchantID, PaymentID: p.ID, Sequence: p.Sequence}
}

// committed is the header's value for what a request of the merchant's has done.
func committed(merchantID, paymentID string, sequence int64) string {
	return readmodel.Position{MerchantID: merchantID, PaymentID: paymentID, Sequence: sequence}.Token()
}
