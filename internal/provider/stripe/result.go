package stripe

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stripe/stripe-go/v85"

	"payments/internal/provider"
)

// The metadata by which an operation is found again.
const (
	metaReference = "reference"
	metaKey       = "key"
	metaType      = "type"
	metaCapture   = "capture_key" // of a PaymentIntent: the key of its capture
)

func metadata(op provider.Operation) map[string]string {
	return map[string]string{metaReference: op.Reference, metaKey: op.Key, metaType: string(op.Type)}
}

// of tells whether what has this metadata is op's.
func of(op provider.Operation, m map[string]string) bool {
	return m[metaReference] == op.Reference && m[metaKey] == op.Key && m[metaType] == string(op.Type)
}

// authorized believes the PaymentIntent only if it is op's in every respect. It
// may have been captured or canceled since: that is another operation.
func authorized(op provider.Operation, amount int64, i *stripe.PaymentIntent) provider.Result {
	if !of(op, i.Metadata) || i.Amount != amount || !strings.EqualFold(string(i.Currency), op.Currency) || i.ID == "" {
		return another(op)
	}
	held := provider.Result{Outcome: provider.Succeeded, OperationID: i.ID}
	switch i.Status {
	case stripe.PaymentIntentStatusRequiresCapture, stripe.PaymentIntentStatusSucceeded:
		return held
	case stripe.PaymentIntentStatusCanceled:
		switch {
		case i.LastPaymentError != nil:
			return declined(i.ID, i.LastPaymentError)
		case i.LatestCharge != nil:
			return held
		}
		return rejected(i.ID, "canceled", "The payment was canceled before it was authorized.")
	case stripe.PaymentIntentStatusRequiresPaymentMethod:
		if i.LastPaymentError != nil {
			return declined(i.ID, i.LastPaymentError)
		}
	case stripe.PaymentIntentStatusProcessing:
		return pending("%s %s: the PaymentIntent is being processed", op.Type, op.Reference)
	case stripe.PaymentIntentStatusRequiresAction:
		// Nobody has the secret that a customer would need to go on.
		return rejected(i.ID, "authentication_required", "The card asks for the customer's authentication.")
	case stripe.PaymentIntentStatusRequiresConfirmation:
	}
	return unknown(false, "%s %s: the PaymentIntent is in the state %q", op.Type, op.Reference, provider.Printable(string(i.Status), 64))
}

func captured(op provider.Operation, amount int64, i *stripe.PaymentIntent) provider.Result {
	switch {
	case i.ID != op.Parent || i.Metadata[metaReference] != op.Reference || i.Metadata[metaCapture] != op.Key || !strings.EqualFold(string(i.Currency), op.Currency):
		return another(op)
	case i.Status == stripe.PaymentIntentStatusProcessing:
		return pending("%s %s: the capture is being processed", op.Type, op.Reference)
	case i.Status != stripe.PaymentIntentStatusSucceeded || i.AmountReceived != amount || i.LatestCharge == nil || i.LatestCharge.ID == "":
		return another(op)
	}
	return provider.Result{Outcome: provider.Succeeded, OperationID: i.LatestCharge.ID}
}

func voided(op provider.Operation, i *stripe.PaymentIntent) provider.Result {
	if i.ID != op.Parent || i.Metadata[metaReference] != op.Reference || i.Status != stripe.PaymentIntentStatusCanceled {
		return another(op)
	}
	return provider.Result{Outcome: provider.Succeeded, OperationID: i.ID}
}

// refunded takes a pending refund for unknown: it can still fail. The answer kept
// under its key stays what it was, a lookup sees the end.
func refunded(op provider.Operation, amount int64, r *stripe.Refund) provider.Result {
	if !of(op, r.Metadata) || r.Amount != amount || !strings.EqualFold(string(r.Currency), op.Currency) || r.ID == "" ||
		r.Charge == nil || r.Charge.ID != op.Parent {
		return another(op)
	}
	switch r.Status {
	case stripe.RefundStatusSucceeded:
		return provider.Result{Outcome: provider.Succeeded, OperationID: r.ID}
	case stripe.RefundStatusFailed, stripe.RefundStatusCanceled:
		return rejected(r.ID, "refund_failed", "The customer's bank did not take the refund.")
	case stripe.RefundStatusPending, stripe.RefundStatusRequiresAction:
		return pending("%s %s: the refund is %q", op.Type, op.Reference, r.Status)
	}
	return unknown(true, "%s %s: the refund is %q", op.Type, op.Reference, provider.Printable(string(r.Status), 64))
}

func pending(format string, args ...any) provider.Result {
	r := unknown(true, format, args...)
	r.Pending = true
	return r
}

func another(op provider.Operation) provider.Result {
	return unknown(true, "%s %s: the answer is not about this operation", op.Type, op.Reference)
}

func rejected(id, code, message string) provider.Result {
	return provider.Result{Outcome: provider.Rejected, OperationID: id, Code: code, Message: message}
}

// declined is the same whether the error came as the answer or stands in the
// PaymentIntent.
func declined(id string, e *stripe.Error) provider.Result {
	return rejected(id, declineCode(e), provider.Printable(e.Msg, 256))
}

var untold = []stripe.DeclineCode{
	stripe.DeclineCodeFraudulent, stripe.DeclineCodeLostCard, stripe.DeclineCodeStolenCard, stripe.DeclineCodeMerchantBlacklist,
}

// declineCode tells of lost and stolen cards and suspected fraud no more than
// that the card was declined, as https://docs.stripe.com/declines/codes asks for. So
// does a decline that names no code.
func declineCode(e *stripe.Error) string {
	code := string(e.Code)
	if code == "" || e.Code == stripe.ErrorCodeCardDeclined {
		code = string(e.DeclineCode)
	}
	if code == string(stripe.DeclineCodeGenericDecline) || slices.Contains(untold, e.DeclineCode) {
		code = ""
	}
	return cmp.Or(provider.Printable(code, 64), string(stripe.ErrorCodeCardDeclined))
}

// cause keeps Stripe's own words short; stripe.Error prints a whole document.
func cause(err error) error {
	var e *stripe.Error
	if !errors.As(err, &e) {
		return err
	}
	return fmt.Errorf("the provider answered %d %s %s, request %s: %s",
		e.HTTPStatusCode, e.Type, e.Code, provider.Printable(e.RequestID, 64), provider.Printable(e.Msg, 256))
}
