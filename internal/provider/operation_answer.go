package provider

import (
	"errors"
	"fmt"
)

// operationAnswer is an operation as the provider tells of it. Members that are
// not here are ignored, so that the provider may add some.
type operationAnswer struct {
	ID             string        `json:"id"`
	Reference      string        `json:"reference"`
	Type           OperationType `json:"type"`
	Status         string        `json:"status"`
	Amount         int64         `json:"amount"`
	Currency       string        `json:"currency"`
	Code           string        `json:"code"`
	Message        string        `json:"message"`
	Parent         string        `json:"parent"`
	IdempotencyKey string        `json:"idempotency_key"`
}

// result believes the answer only if it is about op in every respect.
func (a operationAnswer) result(op Operation) Result {
	if err := a.check(op); err != nil {
		return unknown(true, "%s %s: %w", op.Type, op.Reference, err)
	}
	if a.Status == "succeeded" {
		return Result{Outcome: Succeeded, OperationID: a.ID}
	}
	if a.Code == "no_such_authorization" || a.Code == "no_such_capture" {
		r := unknown(false, "%s %s: the provider does not know %s, which it gave us", op.Type, op.Reference, Printable(op.Parent, 255))
		r.Code = CodeUnknownParent
		return r
	}
	return Result{Outcome: Rejected, OperationID: a.ID, Code: Printable(a.Code, 64), Message: Printable(a.Message, 256)}
}

func (a operationAnswer) check(op Operation) error {
	// A void asks for no amount: it has the authorization's, or none when it was
	// declined because there is no such authorization.
	amounts := op.Type != Void || a.Status == "succeeded" && op.Amount != 0
	switch {
	case a.ID == "" || Printable(a.ID, 255) != a.ID:
		return errors.New("the provider's answer has no operation id that can be kept")
	case a.Reference != op.Reference:
		return errors.New("the provider answered with another reference")
	case a.IdempotencyKey != op.Key:
		return errors.New("the provider answered with another idempotency key")
	case a.Type != op.Type:
		return fmt.Errorf("the provider answered with the type %q", Printable(string(a.Type), 32))
	case amounts && (a.Amount != op.Amount || a.Currency != op.Currency):
		return fmt.Errorf("the provider answered with the amount %d %s instead of %d %s",
			a.Amount, Printable(a.Currency, 8), op.Amount, op.Currency)
	case op.Parent != "" && a.Parent != op.Parent:
		return errors.New("the provider answered with another parent operation")
	case a.Status == "declined" && a.Code == "":
		return errors.New("the provider declined without a code")
	case a.Status != "succeeded" && a.Status != "declined":
		return fmt.Errorf("the provider answered with the status %q", Printable(a.Status, 32))
	}
	return nil
}
