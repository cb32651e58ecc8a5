package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/go-chi/chi/v5"

	"payments/internal/access"
	"payments/internal/idempotency"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/readmodel"
)

func (s *server) cancelPayment(ctx context.Context, c *call) error {
	return s.change(ctx, c, s.Orders.Cancel)
}

func (s *server) capturePayment(ctx context.Context, c *call) error {
	return s.change(ctx, c, s.Orders.Capture)
}

// change asks for something that the saga does: 202 with the payment as the write model has
// it, or 200 with its outcome where that was waited for.
func (s *server) change(ctx context.Context, c *call, do func(ctx context.Context, merchantID, paymentID string) (order.Payment, error)) error {
	if err := c.decode(&struct{}{}); err != nil {
		return err
	}
	merchantID, _ := c.scope.Merchant()
	asking, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	p, err := do(asking, merchantID, chi.URLParam(c.r, "id"))
	if err != nil {
		return err
	}
	over := func(status payment.Status) bool { return status.Terminal() || status == payment.StatusRequiresReview }
	if ended, ok := s.outcome(ctx, c, p.MerchantID, p.ID, over, over(p.Status)); ok {
		return s.ended(ctx, c, ended)
	}
	r, err := s.viewResource(c, readmodel.Payment(p))
	if err != nil {
		return err
	}
	c.w.Header().Set(headerReadAfter, position(p).Token())
	c.w.Header().Set("Location", "/v1/payments/"+p.ID)
	s.write(ctx, c.w, http.StatusAccepted, "application/json", r)
	return nil
}

type refundRequest struct {
	Amount *int64  `json:"amount"` // all that is left if missing
	Reason *string `json:"reason"` // optional
}

func (s *server) createRefund(ctx context.Context, c *call) error {
	var q refundRequest
	request, err := c.keyed(&q)
	if err != nil {
		return err
	}
	reason := ""
	if q.Reason != nil {
		if reason = *q.Reason; reason == "" { // for the domain it would be none
			return invalid("/reason", "text_invalid", "must not be empty")
		}
	}
	wanted, err := payment.NewRefund(q.Amount, reason)
	if err != nil {
		return err
	}
	id := chi.URLParam(c.r, "id")
	if _, all := c.scope.Merchant(); all {
		p, err := s.Orders.Payment(ctx, "", id)
		if err != nil {
			return err
		}
		request = c.inNameOf(request, p.MerchantID)
		wanted = wanted.By(payment.Staff{KeyID: c.principal.KeyID, Holder: c.principal.Holder})
	}
	resp, replayed, err := s.Orders.Refund(ctx, request, id, wanted, func(r order.Refunding) (idempotency.Response, error) {
		if err := s.permitAmount(ctx, c, r); err != nil {
			return idempotency.Response{}, err
		}
		return s.seal(request, r.ID, "/v1/payments/"+r.PaymentID+"/refunds", committed(request.MerchantID, r.PaymentID, r.Sequence), refundResource{
			ID: r.ID, Object: "refund", Payment: r.PaymentID, Amount: r.Amount, Currency: r.Currency, Reason: given(r.Reason),
			Status: payment.RefundPending, CreatedAt: shown(r.CreatedAt), UpdatedAt: shown(r.CreatedAt),
		})
	})
	if err != nil {
		return err
	}
	return s.unseal(c, request, resp, replayed)
}

// permitAmount asks once the amount is certain, with what was given before counted under the
// payment's lock, and before it is committed.
func (s *server) permitAmount(ctx context.Context, c *call, r order.Refunding) error {
	currency, err := payment.ParseCurrency(r.Currency)
	if err != nil {
		return fmt.Errorf("currency of %s: %w", r.PaymentID, err)
	}
	amount, err := payment.NewMoney(r.Amount, currency)
	if err != nil {
		return fmt.Errorf("amount of %s: %w", r.ID, err)
	}
	return s.Authorizer.AuthorizeRefund(ctx, c.principal, access.Refund{
		Amount: amount, OfPayment: max(r.StaffOfPayment, r.Amount), OfPersonToday: max(r.StaffToday, r.Amount),
	})
}
