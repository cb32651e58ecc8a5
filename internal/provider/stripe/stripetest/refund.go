package stripetest

import (
	"net/http"
	"net/url"
	"strconv"
)

func (a *Account) createRefund(f url.Values) answer {
	var c *charge
	switch {
	case f.Has("charge"):
		if c = byID(a.charges, f.Get("charge")); c == nil {
			return missing("charge", "charge", f.Get("charge"))
		}
	case f.Has("payment_intent"):
		i := byID(a.intents, f.Get("payment_intent"))
		if i == nil {
			return missing("payment_intent", "payment_intent", f.Get("payment_intent"))
		}
		if i.LatestCharge == nil {
			return invalid("payment_intent", "This PaymentIntent does not have a successful charge to refund.").kept()
		}
		c = byID(a.charges, *i.LatestCharge)
	default:
		return failed(http.StatusBadRequest, "parameter_missing", "charge", "One of the following params should be provided for this request: payment_intent or charge.")
	}
	left := c.Amount - c.AmountRefunded
	amount := left
	if f.Has("amount") {
		n, err := strconv.ParseInt(f.Get("amount"), 10, 64)
		if err != nil || n < 1 {
			return failed(http.StatusBadRequest, "parameter_invalid_integer", "amount", "Invalid positive integer.")
		}
		amount = n
	}
	switch {
	case c.Status != "succeeded":
		return failed(http.StatusBadRequest, "", "charge", "This charge is not successful.").kept()
	case !c.Captured:
		return invalid("charge", "This uncaptured Charge was created by a PaymentIntent. You must cancel the PaymentIntent to reverse the authorization instead of refunding the Charge directly.").kept()
	case a.openDispute(c):
		return failed(http.StatusBadRequest, "charge_disputed", "charge", "The charge has been charged back.").kept()
	case left == 0:
		return failed(http.StatusBadRequest, "charge_already_refunded", "", "The charge has already been refunded.").kept()
	case amount > left:
		return invalid("amount", "Refund amount is greater than unrefunded amount on charge.").kept()
	}
	return ok(a.render(a.refund(c, amount, metadataOf(f)), nil))
}

func (a *Account) refund(c *charge, amount int64, metadata map[string]string) *refund {
	r := &refund{
		ID: a.id("re"), Object: "refund", Amount: amount, Charge: c.ID, Created: a.s.now().Unix(), Currency: c.Currency,
		Metadata: metadata, PaymentIntent: c.PaymentIntent, Status: "succeeded",
	}
	if a.pending {
		r.Status, r.PendingReason = "pending", "insufficient_funds"
	}
	a.refunds = append(a.refunds, r)
	c.AmountRefunded += amount
	c.Refunded = c.AmountRefunded == c.Amount
	a.emit("refund.created", r)
	a.emit("charge.refunded", c)
	return r
}

func (a *Account) listRefunds(f url.Values, expand []string) answer {
	if f.Has("charge") && byID(a.charges, f.Get("charge")) == nil {
		return missing("charge", "charge", f.Get("charge"))
	}
	if f.Has("payment_intent") && byID(a.intents, f.Get("payment_intent")) == nil {
		return missing("payment_intent", "payment_intent", f.Get("payment_intent"))
	}
	return list(a, "/v1/refunds", f, expand, a.refunds, func(r *refund) bool {
		return matches(f, "charge", r.Charge) && matches(f, "payment_intent", r.PaymentIntent)
	})
}

func (a *Account) openDispute(c *charge) bool {
	for _, d := range a.disputes {
		if d.Charge == c.ID && !d.Refundable && d.Status != "won" && d.Status != "warning_closed" {
			return true
		}
	}
	return false
}
