package order

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/provider"
	"payments/internal/saga"
)

// The steps of the order saga and their compensations.
const (
	stepReserve   = "reserve_stock"
	stepAuthorize = "authorize_payment"
	stepCapture   = "capture_payment"
	stepConfirm   = "confirm_order"
	undoAuthorize = "void_authorization"
	undoReserve   = "release_stock"
)

// sagaData is what the saga remembers between its steps.
type sagaData struct {
	MerchantID    string `json:"merchant_id"`
	OrderID       string `json:"order_id"`
	PaymentID     string `json:"payment_id"`
	Amount        int64  `json:"amount"`
	Currency      string `json:"currency"`
	PaymentMethod string `json:"payment_method"`
	Authorization string `json:"authorization,omitempty"` // the provider's id
	Capture       string `json:"capture,omitempty"`       // the provider's id
}

func (d sagaData) event(status payment.Status) payment.EventData {
	return payment.EventData{MerchantID: d.MerchantID, OrderID: d.OrderID, PaymentID: d.PaymentID, Status: status}
}

func decode(raw json.RawMessage) (d sagaData, err error) {
	if err = json.Unmarshal(raw, &d); err != nil {
		return d, fmt.Errorf("decode saga data: %w", err)
	}
	return d, nil
}

func (s *Service) define() saga.Definition {
	return saga.Definition{
		Name: "order", Version: 1,
		Steps: []saga.Step{
			{
				Kind: saga.Compensatable,
				Do:   saga.Action{Name: stepReserve, Local: s.reserveStock},
				Undo: &saga.Action{Name: undoReserve, Local: s.releaseStock},
			},
			{
				Kind: saga.Compensatable,
				Do:   saga.Action{Name: stepAuthorize, Call: s.call(provider.Authorization, s.authorized)},
				Undo: &saga.Action{Name: undoAuthorize, Call: s.call(provider.Void, s.voided)},
			},
			{Kind: saga.Pivot, Do: saga.Action{Name: stepCapture, Call: s.call(provider.Capture, s.captured)}},
			{Kind: saga.Retriable, Do: saga.Action{Name: stepConfirm, Local: s.confirm}},
		},
		Completed:   func(context.Context, pgx.Tx, *saga.Instance) error { return nil },
		Compensated: s.fail,
		Parked:      s.park,
	}
}

type record func(ctx context.Context, tx pgx.Tx, i *saga.Instance, d *sagaData, o saga.Outcome) error

// call makes a step of the provider's operation. The saga's data names what the
// operation acts on; recording may add to it.
func (s *Service) call(t provider.OperationType, r record) *saga.Call {
	do := func(with func(context.Context, provider.Operation) provider.Result) func(context.Context, saga.Request) saga.Outcome {
		return func(ctx context.Context, req saga.Request) saga.Outcome {
			d, err := decode(req.Data)
			if err != nil {
				return saga.Outcome{Verdict: saga.Unknown, Code: "bad_saga_data", Detail: err.Error()}
			}
			op := provider.Operation{Key: req.Key, Reference: d.PaymentID, Type: t, Amount: d.Amount, Currency: d.Currency}
			switch t {
			case provider.Authorization:
				op.PaymentMethod = d.PaymentMethod
			case provider.Capture, provider.Void:
				op.Parent = d.Authorization
			case provider.Refund:
				op.Parent = d.Capture
			}
			return outcome(with(ctx, op))
		}
	}
	return &saga.Call{
		Execute: do(s.provider.Execute),
		Lookup:  do(s.provider.Lookup),
		Record: func(ctx context.Context, tx pgx.Tx, i *saga.Instance, o saga.Outcome) error {
			d, err := decode(i.Data)
			if err != nil {
				return err
			}
			if err := r(ctx, tx, i, &d, o); err != nil {
				return err
			}
			i.Data, err = json.Marshal(d)
			return err
		},
	}
}

func outcome(r provider.Result) saga.Outcome {
	o := saga.Outcome{Verdict: saga.Unknown, Code: r.Code, Detail: r.Message, Reference: r.OperationID, InFlight: r.InFlight}
	switch r.Outcome {
	case provider.Succeeded:
		o.Verdict = saga.Succeeded
	case provider.Rejected:
		o.Verdict = saga.Rejected
	case provider.NotFound:
		o.Verdict = saga.NotFound
	default:
		if o.Code == "" {
			o.Code = "provider_unknown"
		}
		if r.Err != nil {
			o.Detail = r.Err.Error()
		}
	}
	return o
}

func (s *Service) authorized(ctx context.Context, tx pgx.Tx, i *saga.Instance, d *sagaData, o saga.Outcome) error {
	if o.Verdict == saga.Rejected {
		return s.declined(ctx, tx, i, d, stepAuthorize, o)
	}
	d.Authorization = o.Reference
	e := d.event(payment.StatusProcessing)
	e.Authorization = &payment.AuthorizationData{Provider: s.provider.Name(), Operation: o.Reference, Amount: d.Amount}
	return s.emit(ctx, tx, i, payment.EventPaymentAuthorized, e)
}

func (s *Service) captured(ctx context.Context, tx pgx.Tx, i *saga.Instance, d *sagaData, o saga.Outcome) error {
	if o.Verdict == saga.Rejected {
		return s.declined(ctx, tx, i, d, stepCapture, o)
	}
	d.Capture = o.Reference
	if _, err := tx.Exec(ctx, `
		UPDATE payments SET amount_captured = amount, updated_at = now() WHERE merchant_id = $1 AND id = $2`,
		d.MerchantID, d.PaymentID); err != nil {
		return fmt.Errorf("record capture: %w", err)
	}
	e := d.event(payment.StatusProcessing)
	e.Captured = &payment.CapturedData{Provider: s.provider.Name(), Operation: o.Reference, Amount: d.Amount}
	return s.emit(ctx, tx, i, payment.EventPaymentCaptured, e)
}

func (s *Service) voided(ctx context.Context, tx pgx.Tx, i *saga.Instance, d *sagaData, o saga.Outcome) error {
	if o.Verdict == saga.Rejected {
		return nil // the saga is parked, and Parked tells of it
	}
	return s.emit(ctx, tx, i, payment.EventPaymentVoided, d.event(payment.StatusProcessing))
}

// declined remembers why; the payment fails once everything done is undone.
func (s *Service) declined(ctx context.Context, tx pgx.Tx, i *saga.Instance, d *sagaData, step string, o saga.Outcome) error {
	return s.refuse(ctx, tx, i, d, payment.EventPaymentDeclined, payment.Failure{Code: o.Code, Step: step, Message: o.Detail})
}

func (s *Service) refuse(ctx context.Context, tx pgx.Tx, i *saga.Instance, d *sagaData, t payment.EventType, f payment.Failure) error {
	if f.Message == "" {
		f.Message = "The payment was refused."
	}
	if _, err := tx.Exec(ctx, `
		UPDATE payments SET failure_code = $3, failure_step = $4, failure_message = $5, updated_at = now()
		WHERE merchant_id = $1 AND id = $2`, d.MerchantID, d.PaymentID, f.Code, f.Step, f.Message); err != nil {
		return fmt.Errorf("record failure: %w", err)
	}
	e := d.event(payment.StatusProcessing)
	e.Failure = &f
	return s.emit(ctx, tx, i, t, e)
}

// confirm sells what was reserved and ends the payment.
func (s *Service) confirm(ctx context.Context, tx pgx.Tx, i *saga.Instance) (saga.Outcome, error) {
	d, err := decode(i.Data)
	if err != nil {
		return saga.Outcome{}, err
	}
	if err := settle(ctx, tx, d, "sold"); err != nil {
		return saga.Outcome{}, err
	}
	if err := s.end(ctx, tx, d, "confirmed", payment.StatusSucceeded); err != nil {
		return saga.Outcome{}, err
	}
	err = s.emit(ctx, tx, i, payment.EventOrderConfirmed, d.event(payment.StatusSucceeded))
	return saga.Outcome{Verdict: saga.Succeeded}, err
}

func (s *Service) fail(ctx context.Context, tx pgx.Tx, i *saga.Instance) error {
	d, err := decode(i.Data)
	if err != nil {
		return err
	}
	if err := s.end(ctx, tx, d, "failed", payment.StatusFailed); err != nil {
		return err
	}
	e := d.event(payment.StatusFailed)
	e.Failure = &payment.Failure{}
	if err := tx.QueryRow(ctx, `
		SELECT failure_code, failure_step, failure_message FROM payments WHERE merchant_id = $1 AND id = $2`,
		d.MerchantID, d.PaymentID).Scan(&e.Failure.Code, &e.Failure.Step, &e.Failure.Message); err != nil {
		return fmt.Errorf("read failure: %w", err)
	}
	return s.emit(ctx, tx, i, payment.EventOrderFailed, e)
}

// end closes the order and its payment. The order's slot in the semantic lock is
// kept by a confirmed order and freed by a failed one.
func (s *Service) end(ctx context.Context, tx pgx.Tx, d sagaData, order string, p payment.Status) error {
	if _, err := tx.Exec(ctx, `UPDATE orders SET status = $3, updated_at = now() WHERE merchant_id = $1 AND id = $2`,
		d.MerchantID, d.OrderID, order); err != nil {
		return fmt.Errorf("close order: %w", err)
	}
	if _, err := tx.Exec(ctx, `UPDATE payments SET status = $3, updated_at = now() WHERE merchant_id = $1 AND id = $2`,
		d.MerchantID, d.PaymentID, p); err != nil {
		return fmt.Errorf("close payment: %w", err)
	}
	return nil
}

// park gives the payment to a person.
func (s *Service) park(ctx context.Context, tx pgx.Tx, i *saga.Instance, _ string) error {
	d, err := decode(i.Data)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE payments SET status = $3, updated_at = now() WHERE merchant_id = $1 AND id = $2`,
		d.MerchantID, d.PaymentID, payment.StatusRequiresReview); err != nil {
		return fmt.Errorf("give payment to a person: %w", err)
	}
	return s.emit(ctx, tx, i, payment.EventReviewRequired, d.event(payment.StatusRequiresReview))
}
