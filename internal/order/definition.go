package order

import (
	"context"
	"encoding/json"
	"time"

	"payments/internal/payment"
	"payments/internal/provider"
	"payments/internal/saga"
)

// The sagas of this package.
const (
	sagaAutomatic = "order"
	sagaManual    = "order_manual_capture"
	sagaRefund    = "refund"
	sagaOrphan    = "orphan_void"
	sagaInspect   = "inspect_payment"
)

// Their steps and compensations.
const (
	stepReserve   = "reserve_stock"
	stepAuthorize = "authorize_payment"
	stepAwait     = "await_capture"
	stepCapture   = "capture_payment"
	stepConfirm   = "confirm_order"
	undoAuthorize = "void_authorization"
	undoReserve   = "release_stock"

	stepRefund = "refund_payment"

	stepFind       = "find_authorization"
	stepVoidOrphan = "void_orphan"

	stepInspect = "look_at_payment"
)

// calling are the steps whose key a provider may name.
var calling = []string{stepAuthorize, stepCapture, undoAuthorize, stepRefund, stepVoidOrphan}

// Why a saga turns back or fails, beside the provider's own codes.
const (
	codeCanceled = "canceled"

	codeCanceledByProvider = "canceled_by_provider"
	codeLapsed             = "authorization_expired"
	codeNoStock            = "insufficient_stock"
	codeUnknownSKU         = "unknown_sku"
	codeNothingFound       = "nothing_found"

	codeVoidedByProvider = "authorization_voided"
	codeCapturedOutside  = "captured_outside"
	codeNotInspected     = "not_inspected"
	codeUnknownID        = "unknown_at_provider"
)

// Sagas are the definitions that a worker runs: every version of which a saga may
// still be under way, the newest first. A change of steps is a new version beside the old one.
func (s *Service) Sagas() []saga.Definition {
	first := func(d saga.Definition) saga.Definition {
		d.Version = 1
		return d
	}
	return []saga.Definition{s.automatic(), s.manual(), s.refund(), s.orphan(), s.inspection(), first(s.automatic()), first(s.manual())}
}

func (s *Service) automatic() saga.Definition {
	return s.definition(sagaAutomatic, reserving(), s.authorizing(), s.capturing(), confirming())
}

// manual waits for the merchant between authorization and capture.
func (s *Service) manual() saga.Definition {
	return s.definition(sagaManual, reserving(), s.authorizing(), saga.Step{
		Kind: saga.Compensatable,
		Do: saga.Action{Name: stepAwait, Await: &saga.Await{
			Within: func(json.RawMessage) time.Duration { return s.CaptureWindow },
			Lapse:  saga.Outcome{Verdict: saga.Rejected, Code: codeLapsed, Detail: "The payment was not captured in time."},
		}},
	}, s.capturing(), confirming())
}

func (s *Service) definition(name string, steps ...saga.Step) saga.Definition {
	return saga.Definition{
		// Version 1 had the payment method in the clear: a process that knows no other
		// must not take a saga whose data has a ciphertext, of which it knows nothing.
		Name: name, Version: 2, Deadline: s.Deadline, Steps: steps,
		Completed: nothing, Compensated: hook(s.turnedBack), Parked: parking(park),
	}
}

func nothing(context.Context, saga.Unit, *saga.Instance) error { return nil }

func reserving() saga.Step {
	return saga.Step{
		Kind: saga.Compensatable,
		Do:   saga.Action{Name: stepReserve, Local: local(reserve, reserved)},
		Undo: &saga.Action{Name: undoReserve, Local: local(release, released)},
	}
}

func (s *Service) authorizing() saga.Step {
	return saga.Step{
		Kind: saga.Compensatable,
		Do:   saga.Action{Name: stepAuthorize, Call: s.call(provider.Authorization, s.authorized)},
		Undo: &saga.Action{Name: undoAuthorize, Call: s.voidingCall()},
	}
}

func (s *Service) capturing() saga.Step {
	return saga.Step{Kind: saga.Pivot, Do: saga.Action{Name: stepCapture, Call: s.capturingCall()}}
}

func confirming() saga.Step {
	return saga.Step{Kind: saga.Retriable, Do: saga.Action{Name: stepConfirm, Local: local(confirm, confirmed)}}
}

// refund has nothing to undo: the provider gives the money back or refuses to.
func (s *Service) refund() saga.Definition {
	return saga.Definition{
		Name: sagaRefund, Version: 1,
		Steps:     []saga.Step{{Kind: saga.Pivot, Do: saga.Action{Name: stepRefund, Call: s.call(provider.Refund, s.refunded)}}},
		Completed: nothing, Compensated: hook(s.refundTurnedBack), Parked: parking(reviewed),
	}
}

// orphan looks for an authorization that was given after its order had turned
// back, and voids it. Without it the hold would stay, so that it cannot be canceled.
func (s *Service) orphan() saga.Definition {
	return saga.Definition{
		Name: sagaOrphan, Version: 1, Steadfast: true,
		Steps: []saga.Step{
			{Kind: saga.Compensatable, Do: saga.Action{Name: stepFind, Call: s.finding()}},
			{Kind: saga.Retriable, Do: saga.Action{Name: stepVoidOrphan, Call: s.call(provider.Void, s.voided)}},
		},
		Completed: nothing, Compensated: nothing, Parked: parking(reviewed),
	}
}

// sagaOf is the saga that moves an order of this capture method.
func sagaOf(m payment.CaptureMethod) string {
	if m == payment.CaptureManual {
		return sagaManual
	}
	return sagaAutomatic
}
