package stripe

import (
	"errors"
	"net/http"

	"github.com/stripe/stripe-go/v85"

	"payments/internal/provider"
)

// failure maps an error to what is known of the operation. Only a refusal that
// Stripe spelt out, and that a resend would only repeat, is Rejected. What is
// wrong with our account or our program is Unknown: no payment fails for it.
func failure(op provider.Operation, err error, connections int64) provider.Result {
	var e *stripe.Error
	if !errors.As(err, &e) {
		// No answer, or none of Stripe's.
		return unknown(connections > 0, "%s %s: %w", op.Type, op.Reference, err)
	}
	if e.Type == stripe.ErrorTypeCard {
		return declined(subject(e), e)
	}
	if code := astray(op, e); code != "" {
		r := unknown(connections > 1, "%s %s: %w", op.Type, op.Reference, cause(err))
		r.Code = code
		return r
	}
	if e.Type == stripe.ErrorTypeInvalidRequest {
		if code, message := refusal(op, e); code != "" {
			return rejected(subject(e), code, message)
		}
	}
	// net/http resends by itself when a kept-alive connection dies under a
	// request with an Idempotency-Key: then the error answers the second sending.
	inFlight := connections > 1
	switch {
	case e.HTTPStatusCode == http.StatusConflict || e.Code == stripe.ErrorCodeIdempotencyKeyInUse:
		inFlight = true // another request with this key is being carried out
	case e.HTTPStatusCode >= http.StatusInternalServerError || e.HTTPStatusCode < http.StatusBadRequest || e.Type == stripe.ErrorTypeAPI:
		inFlight = true // "treat the result of a 500 as indeterminate", https://docs.stripe.com/error-low-level
	}
	return unknown(inFlight, "%s %s: %w", op.Type, op.Reference, cause(err))
}

// astray names why an error says nothing about the operation: the key is not accepted, or
// it is of another account, which has nothing that we were given in ours.
func astray(op provider.Operation, e *stripe.Error) string {
	switch {
	case e.HTTPStatusCode == http.StatusUnauthorized || e.HTTPStatusCode == http.StatusForbidden:
		return provider.CodeAccessRefused
	case e.Code == stripe.ErrorCodeResourceMissing && op.Type != provider.Authorization:
		return provider.CodeUnknownParent
	}
	return ""
}

// subject is the operation's id at Stripe where the error names it.
func subject(e *stripe.Error) string {
	if e.PaymentIntent != nil {
		return e.PaymentIntent.ID
	}
	return e.ChargeID
}

// refusal names why Stripe will never do op; an empty code means that it may.
// The codes are the simulator's where it has them.
func refusal(op provider.Operation, e *stripe.Error) (code, message string) {
	switch e.Code { //nolint:exhaustive // one of two hundred codes, of which these can be final for us
	case stripe.ErrorCodePaymentIntentUnexpectedState:
		return unexpectedState(op, e.PaymentIntent)
	case stripe.ErrorCodeResourceMissing:
		if op.Type == provider.Authorization && e.Param == "payment_method" {
			return "invalid_payment_method", "There is no such payment method."
		}
		return "", ""
	case stripe.ErrorCodeAmountTooLarge, stripe.ErrorCodeAmountTooSmall:
		return string(e.Code), provider.Printable(e.Msg, 256)
	case stripe.ErrorCodeChargeExpiredForCapture, stripe.ErrorCodeCaptureChargeAuthorizationExpired:
		return "authorization_expired", "The authorization has expired."
	case stripe.ErrorCodeChargeAlreadyCaptured:
		return "already_captured", "The authorization was captured already."
	case stripe.ErrorCodeChargeAlreadyRefunded:
		return "refund_exceeds_capture", "The refunds would exceed the capture."
	case stripe.ErrorCodeChargeDisputed, stripe.ErrorCodeRefundDisputedPayment:
		return "payment_disputed", "The customer disputes the payment: it cannot be refunded."
	}
	// What is left has many codes or none, and a parameter.
	switch {
	case op.Type == provider.Refund && e.Param == "amount":
		return "refund_exceeds_capture", "The refunds would exceed the capture."
	case op.Type == provider.Authorization && e.Param == "currency":
		return "currency_not_supported", "The provider does not take this currency."
	case op.Type == provider.Authorization && e.Param == "payment_method":
		return "invalid_payment_method", "This payment method cannot be used."
	}
	return "", ""
}

func unexpectedState(op provider.Operation, i *stripe.PaymentIntent) (code, message string) {
	switch {
	case i == nil || op.Type != provider.Capture && op.Type != provider.Void:
		return "", ""
	case i.Status == stripe.PaymentIntentStatusSucceeded:
		return "already_captured", "The authorization was captured already."
	case i.Status == stripe.PaymentIntentStatusCanceled && op.Type == provider.Void:
		return "already_voided", "The authorization was voided already."
	case i.Status == stripe.PaymentIntentStatusCanceled &&
		(i.CancellationReason == stripe.PaymentIntentCancellationReasonAutomatic || i.CancellationReason == stripe.PaymentIntentCancellationReasonExpired):
		return "authorization_expired", "The authorization has expired."
	case i.Status == stripe.PaymentIntentStatusCanceled:
		return "authorization_voided", "The authorization was voided."
	}
	return "", "" // in between, or never authorized, which is not the operation that we were given
}
