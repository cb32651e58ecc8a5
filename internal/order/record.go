package order

import (
	"cmp"
	"context"

	"payments/internal/payment"
	"payments/internal/saga"
)

func (s *Service) authorized(ctx context.Context, u *unit, i *saga.Instance, d *sagaData, o saga.Outcome) error {
	d.forget()
	if o.Verdict == saga.Rejected {
		return declined(ctx, u, i, d, stepAuthorize, o)
	}
	p, err := u.payment(d.OrderID)
	if err != nil {
		return err
	}
	d.Authorization = o.Reference
	p.authorization, p.account = o.Reference, d.Account
	if p.captureMethod == payment.CaptureManual {
		p.status = payment.StatusRequiresCapture
		p.clearFailure()
	}
	e := d.event()
	e.Authorization = &payment.AuthorizationData{Provider: s.Provider.Name(), Operation: o.Reference, Amount: d.Amount}
	return u.emit(ctx, i, payment.EventPaymentAuthorized, e)
}

func (s *Service) captured(ctx context.Context, u *unit, i *saga.Instance, d *sagaData, o saga.Outcome) error {
	if o.Verdict == saga.Rejected {
		return declined(ctx, u, i, d, stepCapture, o)
	}
	p, err := u.payment(d.OrderID)
	if err != nil {
		return err
	}
	d.Capture = o.Reference
	p.captured, p.capture = p.amount, o.Reference
	if p.status == payment.StatusRequiresCapture {
		p.status = payment.StatusProcessing
	}
	if o.Code == codeCapturedOutside {
		if _, err := s.noteChange(ctx, u.tx, *d, Change{Kind: CaptureOutside, Subject: o.Reference, Amount: d.Amount, Detail: "The payment was captured at the provider."}); err != nil {
			return err
		}
	}
	e := d.event()
	e.Captured = &payment.CapturedData{Provider: s.Provider.Name(), Operation: o.Reference, Amount: d.Amount}
	return u.emit(ctx, i, payment.EventPaymentCaptured, e)
}

// voided has nothing to tell when the hold was gone already, or when the refusal
// parks the saga: Parked tells of that.
func (s *Service) voided(ctx context.Context, u *unit, i *saga.Instance, d *sagaData, o saga.Outcome) error {
	if o.Verdict == saga.Rejected || o.Code == "already_voided" && i.Rejected() == nil {
		return nil
	}
	e := d.event()
	e.Authorization = &payment.AuthorizationData{Provider: s.Provider.Name(), Operation: d.Authorization, Amount: d.Amount}
	return u.emit(ctx, i, payment.EventPaymentVoided, e)
}

// declined remembers why; the payment fails once everything done is undone.
func declined(ctx context.Context, u *unit, i *saga.Instance, d *sagaData, step string, o saga.Outcome) error {
	return refuse(ctx, u, i, d, payment.EventPaymentDeclined, payment.Failure{Code: o.Code, Step: step, Message: o.Detail})
}

func refuse(ctx context.Context, u *unit, i *saga.Instance, d *sagaData, t payment.EventType, f payment.Failure) error {
	f, err := u.recordFailure(d, f)
	if err != nil {
		return err
	}
	e := d.event()
	e.Failure = &f
	return u.emit(ctx, i, t, e)
}

func (u *unit) recordFailure(d *sagaData, f payment.Failure) (payment.Failure, error) {
	if f.Message == "" {
		f.Message = "The payment was refused."
	}
	p, err := u.payment(d.OrderID)
	if err != nil {
		return f, err
	}
	p.failureCode, p.failureStep, p.failureMessage = f.Code, f.Step, f.Message
	p.account = cmp.Or(p.account, d.Account)
	return f, nil
}

// clearFailure forgets why the payment was under review, once the review is over and the
// payment has not failed. Readers of the event that follows do the same (readmodel.apply).
func (p *paymentRow) clearFailure() { p.failureCode, p.failureStep, p.failureMessage = "", "", "" }

// confirm sells what was reserved and ends the payment.
func confirm(ctx context.Context, u *unit, _ *saga.Instance, d *sagaData) (saga.Outcome, error) {
	if err := u.settle(ctx, d, stockSold); err != nil {
		return saga.Outcome{}, err
	}
	p, err := u.end(d, orderConfirmed, payment.StatusSucceeded)
	if err != nil {
		return saga.Outcome{}, err
	}
	p.clearFailure()
	return saga.Outcome{Verdict: saga.Succeeded}, nil
}

func confirmed(ctx context.Context, u *unit, i *saga.Instance, d *sagaData, _ saga.Outcome) error {
	return u.emit(ctx, i, payment.EventOrderConfirmed, d.event())
}

// turnedBack ends an order of which nothing is left: canceled at the merchant's
// wish or by the lapse of its capture window, else failed.
func (s *Service) turnedBack(ctx context.Context, u *unit, i *saga.Instance, d *sagaData) error {
	d.forget()
	why := i.Rejected()
	if why.Unproven && why.Step == stepAuthorize {
		if err := s.watch(ctx, u.tx, i, *d); err != nil {
			return err
		}
	}
	e := d.event()
	if why.Code == codeCanceled {
		p, err := u.end(d, orderCanceled, payment.StatusCanceled)
		if err != nil {
			return err
		}
		p.clearFailure()
		return u.emit(ctx, i, payment.EventOrderCanceled, e)
	}
	// A refused step has recorded its failure and told of it; the engine's own reasons have not.
	f, err := u.recordFailure(d, payment.Failure{Code: why.Code, Step: why.Step, Message: why.Detail})
	if err != nil {
		return err
	}
	e.Failure = &f
	order, status, event := orderFailed, payment.StatusFailed, payment.EventOrderFailed
	if (why.Code == codeLapsed || why.Code == codeVoidedByProvider) && why.Step == stepAwait {
		order, status, event = orderCanceled, payment.StatusCanceled, payment.EventOrderCanceled
	}
	if _, err := u.end(d, order, status); err != nil {
		return err
	}
	return u.emit(ctx, i, event, e)
}

// The states of an order. All but the first are ends.
const (
	orderIsPlaced  = "placed"
	orderConfirmed = "confirmed"
	orderFailed    = "failed"
	orderCanceled  = "canceled"
)

// end closes the order and its payment. The order's slot in the semantic lock is
// kept by a confirmed order and freed by a failed or canceled one.
func (u *unit) end(d *sagaData, order string, status payment.Status) (*paymentRow, error) {
	o, p, err := u.order(d.OrderID)
	if err != nil {
		return nil, err
	}
	o.status, o.changed = order, true
	p.status, p.changed = status, true
	return p, nil
}

// park gives the payment to a person. It stays in review until it ends.
func park(ctx context.Context, u *unit, i *saga.Instance, d *sagaData, why saga.Rejection) error {
	p, err := u.payment(d.OrderID)
	if err != nil {
		return err
	}
	p.status = payment.StatusRequiresReview
	if _, err := u.recordFailure(d, reviewFailure(why)); err != nil {
		return err
	}
	return reviewed(ctx, u, i, d, why)
}

func reviewFailure(why saga.Rejection) payment.Failure {
	f := payment.Failure{Code: why.Code, Step: why.Step, Message: why.Detail}
	if f.Message == "" {
		f.Message = "A person has to decide."
	}
	return f
}

// reviewed tells that a person has to decide. What a refund or the voiding of a late
// authorization stands at is no failure of the payment, which has ended.
func reviewed(ctx context.Context, u *unit, i *saga.Instance, d *sagaData, why saga.Rejection) error {
	e := d.event()
	f := reviewFailure(why)
	e.Failure = &f
	return u.emit(ctx, i, payment.EventReviewRequired, e)
}
