package order

import (
	"context"
	"fmt"

	"payments/internal/payment"
	"payments/internal/provider"
	"payments/internal/saga"
)

// alreadyCaptured is the provider's refusal of a capture, or of a void, of what was
// captured before.
const alreadyCaptured = "already_captured"

// capturingCall captures. Where the provider refuses because the authorization was
// captured already, and not by us, that capture is the payment's, if it is of the whole
// amount: a person made it at the provider's dashboard.
func (s *Service) capturingCall() *saga.Call {
	return s.refusedBecauseCaptured(s.call(provider.Capture, s.captured), func(d sagaData, state provider.State) (saga.Outcome, bool) {
		c, ok := wholeCapture(d, d.Authorization, state)
		return saga.Outcome{Verdict: saga.Succeeded, Code: codeCapturedOutside, Reference: c.ID}, ok
	})
}

// voidingCall voids. What was captured cannot be voided; but if all of it was refunded
// at the provider, nothing is held or taken, which is all that a void is for.
func (s *Service) voidingCall() *saga.Call {
	return s.refusedBecauseCaptured(s.call(provider.Void, s.voided), func(d sagaData, state provider.State) (saga.Outcome, bool) {
		var taken int64
		for _, c := range state.Captures {
			taken += c.Amount
		}
		for _, r := range state.Refunds {
			if r.Status == provider.RefundSucceeded {
				taken -= r.Amount
			}
		}
		return saga.Outcome{Verdict: saga.Succeeded, Code: "already_refunded", Reference: d.Authorization}, taken == 0 && len(state.Captures) > 0
	})
}

// refusedBecauseCaptured lets a call look at the payment once it is refused for a capture.
func (s *Service) refusedBecauseCaptured(c *saga.Call, judge func(sagaData, provider.State) (saga.Outcome, bool)) *saga.Call {
	looking := func(do func(context.Context, saga.Request) saga.Outcome) func(context.Context, saga.Request) saga.Outcome {
		return func(ctx context.Context, req saga.Request) saga.Outcome {
			o := do(ctx, req)
			if o.Verdict != saga.Rejected || o.Code != alreadyCaptured {
				return o
			}
			d, err := decode(req.Data)
			if err != nil {
				return badData(err)
			}
			state, err := s.Provider.Inspect(withTraceparent(ctx, req.Trace), provider.Payment{Reference: d.PaymentID, Authorization: d.Authorization})
			if err != nil {
				return saga.Outcome{Verdict: saga.Unknown, Code: codeNotInspected, Detail: err.Error()}
			}
			if judged, ok := judge(d, state); ok {
				return judged
			}
			return o
		}
	}
	return &saga.Call{Ready: c.Ready, Execute: looking(c.Execute), Lookup: looking(c.Lookup), Record: c.Record}
}

// actAcceptCapture makes a capture that was made at the provider the payment's.
const actAcceptCapture = "accept_capture"

// acceptCapture lets a payment go on that turned back, and parked since its hold could not
// be voided: it had been captured at the provider. The provider proves the capture, so
// that no second person has to: the capture step looks for it once more.
func (o Operations) acceptCapture(ctx context.Context, by By, id string) error {
	f, err := o.sagas.Open(ctx, id)
	if err != nil {
		return err
	}
	if f.Definition != sagaAutomatic && f.Definition != sagaManual || f.State != saga.Parked || f.Step != undoAuthorize {
		return saga.ErrUndone
	}
	var paymentID string
	if err := o.orders.Pool.QueryRow(ctx, `SELECT id FROM payments WHERE merchant_id = $1 AND order_id = $2`, f.MerchantID, f.Subject).
		Scan(&paymentID); err != nil {
		return fmt.Errorf("read payment: %w", err)
	}
	b, err := readBooks(ctx, o.orders.Pool, f.MerchantID, paymentID)
	if err != nil {
		return err
	}
	state, err := o.orders.Provider.Inspect(ctx, b.named())
	if err != nil {
		return fmt.Errorf("look for the capture of %s: %w", paymentID, err)
	}
	if _, ok := wholeCapture(b.data(), b.authorization, state); !ok {
		return payment.Errorf(payment.CodeSagaState, "The provider has no capture of the payment's whole amount.")
	}
	return o.sagas.Forward(ctx, by, id, actAcceptCapture, stepCapture)
}

func wholeCapture(d sagaData, authorization string, state provider.State) (provider.CaptureState, bool) {
	for _, c := range state.Captures {
		if c.Authorization == authorization && c.Amount == d.Amount && c.Currency == d.Currency {
			return c, true
		}
	}
	return provider.CaptureState{}, false
}
