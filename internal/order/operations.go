package order

import (
	"context"
	"errors"

	"payments/internal/payment"
	"payments/internal/saga"
)

// What operators see and do; the words are the engine's.
type (
	SagaFilter    = saga.Filter
	SagaSubject   = saga.Subject
	SagaState     = saga.State
	SagaSummary   = saga.Summary
	SagaRejection = saga.Rejection
	SagaFile      = saga.File
	By            = saga.By
	Verdict       = saga.Outcome
)

// The verdicts that two persons can agree on, and the states to list by.
const (
	VerdictSucceeded = saga.Succeeded
	VerdictRejected  = saga.Rejected
)

// SagaStates lists the states of a saga.
func SagaStates() []string {
	return []string{string(saga.Running), string(saga.Compensating), string(saga.Completed), string(saga.Compensated), string(saga.Parked)}
}

// SagaNames lists the definitions by name.
func SagaNames() []string {
	return []string{sagaAutomatic, sagaManual, sagaRefund, sagaOrphan, sagaInspect}
}

// Operations is what operators can do with sagas. Errors: CodeNotFound;
// CodeSagaState when the saga does not stand where the act makes sense;
// CodeSecondOperator; CodeInvalid, also when the provider contradicts a verdict;
// CodeServiceUnavailable when the provider cannot be asked about one.
type Operations struct {
	sagas  *saga.Operations
	orders *Service
}

// Operations of the sagas of this package.
func (s *Service) Operations() Operations {
	return Operations{saga.NewOperations(s.Pool, s.Sagas()...), s}
}

// List is oldest first.
func (o Operations) List(ctx context.Context, f SagaFilter) ([]SagaSummary, error) {
	return o.sagas.List(ctx, f)
}

// Open reads all that is known of one saga.
func (o Operations) Open(ctx context.Context, id string) (SagaFile, error) {
	f, err := o.sagas.Open(ctx, id)
	return f, explained(err)
}

// PaymentOf is the payment that the saga is about.
func PaymentOf(s SagaSummary) string {
	d, err := decode(s.Data)
	if err != nil {
		return ""
	}
	return d.PaymentID
}

// Acts are what can be done with a saga, by name.
func Acts() []string {
	return []string{"retry", "resolve", "pause", "resume", "cancel", "propose", "approve", "withdraw", actAcceptCapture}
}

// Act does one of Acts. verdict is that of a proposal, and of its approval.
func (o Operations) Act(ctx context.Context, by By, id, act string, verdict Verdict) error {
	err := checkAct(by, verdict)
	if err != nil {
		return err
	}
	switch act {
	case "retry":
		err = o.sagas.Retry(ctx, by, id)
	case "resolve":
		err = o.sagas.Resolve(ctx, by, id)
	case "pause":
		err = o.sagas.Pause(ctx, by, id)
	case "resume":
		err = o.sagas.Resume(ctx, by, id)
	case "cancel":
		err = o.sagas.Cancel(ctx, by, id, canceled())
	case "propose", "approve":
		decide := o.sagas.Propose
		if act == "approve" {
			decide = o.sagas.Approve
		}
		if !verdict.Whole() {
			err = saga.ErrVerdict
		} else if err = o.orders.verify(ctx, id, act, verdict); err == nil {
			err = decide(ctx, by, id, verdict)
		}
	case "withdraw":
		err = o.sagas.Withdraw(ctx, by, id)
	case actAcceptCapture:
		err = o.acceptCapture(ctx, by, id)
	default:
		return payment.Errorf(payment.CodeNotFound, "There is no such act.")
	}
	if err == nil {
		o.orders.Due()
	}
	return explained(err)
}

// checkAct refuses what the columns of saga_actions would. Whether a verdict is whole is the engine's to say.
func checkAct(by By, v Verdict) error {
	var fields []payment.FieldError
	refuse := func(pointer string, err error) {
		if err != nil {
			fields = append(fields, payment.FieldError{Pointer: pointer, Code: "text_invalid", Message: err.Error()})
		}
	}
	refuse("/operator", payment.CheckText(by.Operator, payment.MaxReference))
	refuse("/holder", payment.CheckHolder(by.Holder))
	refuse("/reason", payment.CheckReason(by.Reason))
	if v.Reference != "" {
		refuse("/verdict/reference", payment.CheckText(v.Reference, payment.MaxReference))
	}
	if v.Code != "" {
		refuse("/verdict/code", payment.CheckText(v.Code, payment.MaxReference))
	}
	if v.Detail != "" {
		refuse("/verdict/detail", payment.CheckReason(v.Detail))
	}
	if len(fields) > 0 {
		return &payment.Error{Code: payment.CodeInvalid, Message: "The act is not valid.", Fields: fields}
	}
	return nil
}

// explained makes the engine's refusals the domain's.
func explained(err error) error {
	for engine, code := range map[error]payment.Code{
		saga.ErrNoSaga: payment.CodeNotFound, saga.ErrSameOperator: payment.CodeSecondOperator, saga.ErrVerdict: payment.CodeInvalid,
		saga.ErrEnded: payment.CodeSagaState, saga.ErrNotParked: payment.CodeSagaState, saga.ErrNotPaused: payment.CodeSagaState, saga.ErrUndone: payment.CodeSagaState,
		saga.ErrNothingSent: payment.CodeSagaState, saga.ErrNoCall: payment.CodeSagaState, saga.ErrNoProposal: payment.CodeSagaState, saga.ErrOtherVerdict: payment.CodeSagaState,
		saga.ErrPastPivot: payment.CodeSagaState, saga.ErrTurnedBack: payment.CodeSagaState, saga.ErrParked: payment.CodeSagaState,
	} {
		if errors.Is(err, engine) {
			text := engine.Error()
			return payment.Errorf(code, "%s", string(text[0]-'a'+'A')+text[1:]+".").Because(err)
		}
	}
	return err
}
