package config

import "time"

// Bank is what a client of the payment provider needs.
type Bank struct {
	Provider        string        // simulator or stripe
	ProviderURL     string        // simulator's; empty with stripe
	StripeKey       string        // empty with simulator
	StripeURL       string        // in the place of https://api.stripe.com; empty: that
	ProviderTimeout time.Duration // of one call
	// ProviderFormer says that the account makes no new payments any more: the process works
	// for the payments that were made with it.
	ProviderFormer bool
}

// LoadBank reads the variables of the provider alone.
func LoadBank(lookup Lookup) (Bank, error) {
	r := reader{lookup: lookup}
	b := r.bank()
	if err := r.err(); err != nil {
		return Bank{}, err
	}
	return b, nil
}

func (r *reader) bank() Bank {
	b := Bank{
		Provider:  r.choice("PAYMENTS_PROVIDER", ProviderSimulator, ProviderStripe),
		StripeURL: r.httpURL("PAYMENTS_STRIPE_URL", optional),
	}
	timeout := 2 * time.Second
	if b.Provider == ProviderStripe {
		// A confirmation asks the card's issuer, and Stripe's own clients wait 80 s for it. What
		// took longer is looked up; a longer timeout makes a longer lease, and later takeovers.
		timeout = 5 * time.Second
	}
	b.ProviderTimeout = r.duration("PAYMENTS_PROVIDER_TIMEOUT", timeout, 100*time.Millisecond, 10*time.Second)
	b.ProviderFormer = r.boolean("PAYMENTS_PROVIDER_FORMER")
	b.ProviderURL = r.httpURL("PAYMENTS_PROVIDER_URL", need(b.Provider == ProviderSimulator))
	b.StripeKey = r.stripeKey("PAYMENTS_STRIPE_KEY", need(b.Provider == ProviderStripe))
	return b
}
