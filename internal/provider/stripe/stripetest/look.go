package stripetest

import (
	"encoding/json"

	"github.com/stripe/stripe-go/v85"
)

// Intents are the PaymentIntents whose metadata have this reference, oldest first; of
// "" all.
func (a *Account) Intents(reference string) (found []*stripe.PaymentIntent) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	for _, i := range a.intents {
		if reference == "" || i.Metadata["reference"] == reference {
			found = append(found, as[stripe.PaymentIntent](a, i))
		}
	}
	return found
}

// Charge is a charge by its id, or nil.
func (a *Account) Charge(id string) *stripe.Charge {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	c := byID(a.charges, id)
	if c == nil {
		return nil
	}
	return as[stripe.Charge](a, c)
}

// Refunds are those of a captured charge, oldest first; of "" all. What released an
// uncaptured charge is not among them.
func (a *Account) Refunds(chargeID string) (found []*stripe.Refund) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	for _, r := range a.refunds {
		if (chargeID == "" || r.Charge == chargeID) && byID(a.charges, r.Charge).Captured {
			found = append(found, as[stripe.Refund](a, r))
		}
	}
	return found
}

// Refunded is what was given back of all captures and did not fail; a pending refund
// counts.
func (a *Account) Refunded() (sum int64) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	for _, r := range a.refunds {
		if r.returned() && byID(a.charges, r.Charge).Captured {
			sum += r.Amount
		}
	}
	return sum
}

func as[T any](a *Account, o any) *T {
	raw, err := json.Marshal(a.render(o, nil))
	out := new(T)
	if err == nil {
		err = json.Unmarshal(raw, out)
	}
	if err != nil {
		a.s.t.Errorf("read %T: %v", out, err)
	}
	return out
}
