package stripetest

import (
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// The payment methods that are refused, with code and decline code
// (https://docs.stripe.com/testing#declined-payments).
var declines = map[string][2]string{
	"pm_card_visa_chargeDeclined":                  {"card_declined", "generic_decline"},
	"pm_card_visa_chargeDeclinedInsufficientFunds": {"card_declined", "insufficient_funds"},
	"pm_card_chargeDeclinedExpiredCard":            {"expired_card", ""},
	"pm_card_chargeCustomerFail":                   {"card_declined", "generic_decline"},
}

const authenticationRequired = "pm_card_authenticationRequired"

func metadataOf(f url.Values) map[string]string {
	m := map[string]string{}
	for k, v := range f {
		if inner, found := strings.CutPrefix(k, "metadata["); found {
			m[strings.TrimSuffix(inner, "]")] = v[0]
		}
	}
	return m
}

// createIntent creates a PaymentIntent and, with confirm, authorizes it.
func (a *Account) createIntent(f url.Values) answer {
	amount, err := strconv.ParseInt(f.Get("amount"), 10, 64)
	method := f.Get("payment_method")
	_, refused := declines[method]
	switch {
	case err != nil || amount < 1:
		return failed(http.StatusBadRequest, "parameter_invalid_integer", "amount", "This value must be greater than or equal to 1.")
	case amount > 99_999_999:
		return failed(http.StatusBadRequest, "amount_too_large", "amount", "Amount must be no more than 999,999.99.")
	case len(f.Get("currency")) != 3 || f.Get("currency") != strings.ToLower(f.Get("currency")):
		return invalid("currency", "Invalid currency.")
	case method != "" && method != "pm_card_visa" && method != authenticationRequired && !refused:
		return missing("payment_method", "PaymentMethod", method)
	}
	i := &intent{
		ID: a.id("pi"), Object: "payment_intent", Amount: amount, Currency: f.Get("currency"), CaptureMethod: "automatic_async",
		Created: a.s.now().Unix(), Metadata: metadataOf(f), Status: "requires_payment_method",
	}
	if f.Has("capture_method") {
		i.CaptureMethod = f.Get("capture_method")
	}
	a.intents = append(a.intents, i)
	a.emit("payment_intent.created", i)
	if method == "" {
		return ok(a.render(i, nil))
	}
	i.PaymentMethod, i.Status = &method, "requires_confirmation"
	if f.Get("confirm") != "true" {
		return ok(a.render(i, nil))
	}
	return a.confirm(i, method, f.Get("error_on_requires_action") == "true")
}

func (a *Account) confirm(i *intent, method string, failOnAction bool) answer {
	if method == authenticationRequired {
		if !failOnAction {
			i.Status = "requires_action"
			a.emit("payment_intent.requires_action", i)
			return ok(a.render(i, nil))
		}
		return a.decline(i, "authentication_required", "authentication_required")
	}
	if why, refused := declines[method]; refused {
		return a.decline(i, why[0], why[1])
	}
	c := a.charged(i)
	c.Paid, c.Status = true, "succeeded"
	if i.CaptureMethod == "manual" {
		i.Status, i.AmountCapturable = "requires_capture", i.Amount
		a.emit("charge.succeeded", c)
		a.emit("payment_intent.amount_capturable_updated", i)
		return ok(a.render(i, nil))
	}
	a.capture(i, i.Amount)
	return ok(a.render(i, nil))
}

func (a *Account) charged(i *intent) *charge {
	c := &charge{
		ID: a.id("ch"), Object: "charge", Amount: i.Amount, Currency: i.Currency, Created: a.s.now().Unix(),
		Metadata: maps.Clone(i.Metadata), PaymentIntent: i.ID, Status: "failed",
	}
	a.charges = append(a.charges, c)
	i.LatestCharge = &c.ID
	return c
}

func (a *Account) decline(i *intent, code, declineCode string) answer {
	c := a.charged(i)
	message := "Your card was declined."
	c.FailureCode, c.FailureMessage = &code, &message
	e := map[string]any{"type": "card_error", "code": code, "message": message, "charge": c.ID}
	if declineCode != "" {
		e["decline_code"] = declineCode
	}
	i.Status, i.PaymentMethod, i.LastPaymentError = "requires_payment_method", nil, maps.Clone(e)
	a.emit("charge.failed", c)
	a.emit("payment_intent.payment_failed", i)
	e["payment_intent"] = a.render(i, nil)
	return answer{http.StatusPaymentRequired, map[string]any{"error": e}, true}
}

func (a *Account) unexpected(i *intent, act string) answer {
	return answer{http.StatusBadRequest, map[string]any{"error": map[string]any{
		"type": "invalid_request_error", "code": "payment_intent_unexpected_state", "payment_intent": a.render(i, nil),
		"message": "This PaymentIntent could not be " + act + " because it has a status of " + i.Status + ".",
	}}, true}
}

func (a *Account) captureIntent(id string, f url.Values) answer {
	i := byID(a.intents, id)
	if i == nil {
		return missing("intent", "payment_intent", id)
	}
	if i.Status != "requires_capture" {
		return a.unexpected(i, "captured")
	}
	amount := i.AmountCapturable
	if f.Has("amount_to_capture") {
		n, err := strconv.ParseInt(f.Get("amount_to_capture"), 10, 64)
		if err != nil || n < 1 {
			return failed(http.StatusBadRequest, "parameter_invalid_integer", "amount_to_capture", "This value must be greater than or equal to 1.")
		}
		amount = n
	}
	if amount > i.AmountCapturable {
		return failed(http.StatusBadRequest, "amount_too_large", "amount_to_capture", "The amount to capture is more than the amount capturable.").kept()
	}
	maps.Copy(i.Metadata, metadataOf(f))
	a.capture(i, amount)
	return ok(a.render(i, nil))
}

// capture takes amount and releases the rest.
func (a *Account) capture(i *intent, amount int64) {
	c := byID(a.charges, *i.LatestCharge)
	i.Status, i.AmountReceived, i.AmountCapturable = "succeeded", amount, 0
	c.Captured, c.AmountCaptured, c.AmountRefunded = true, amount, c.Amount-amount
	a.emit("charge.captured", c)
	a.emit("payment_intent.succeeded", i)
}

func (a *Account) cancelIntent(id string, f url.Values) answer {
	i := byID(a.intents, id)
	switch {
	case i == nil:
		return missing("intent", "payment_intent", id)
	case i.Status == "succeeded" || i.Status == "canceled" || i.Status == "processing":
		return a.unexpected(i, "canceled")
	}
	a.cancel(i, f.Get("cancellation_reason"), "")
	return ok(a.render(i, nil))
}

// cancel releases what is held. Stripe gives that as a refund of the uncaptured
// charge, with an event charge.refunded or charge.expired.
func (a *Account) cancel(i *intent, reason, refundReason string) {
	held := i.Status == "requires_capture"
	now := a.s.now().Unix()
	i.Status, i.AmountCapturable, i.CanceledAt = "canceled", 0, &now
	if reason != "" {
		i.CancellationReason = &reason
	}
	if held {
		c := byID(a.charges, *i.LatestCharge)
		r := &refund{
			ID: a.id("re"), Object: "refund", Amount: c.Amount, Charge: c.ID, Created: now, Currency: c.Currency,
			Metadata: map[string]string{}, PaymentIntent: i.ID, Status: "succeeded",
		}
		event := "charge.refunded"
		if refundReason != "" {
			r.Reason, event = &refundReason, "charge.expired"
		}
		a.refunds = append(a.refunds, r)
		c.AmountRefunded, c.Refunded = c.Amount, true
		a.emit(event, c)
	}
	a.emit("payment_intent.canceled", i)
}
