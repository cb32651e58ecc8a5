// Package stripe is a provider.Provider over Stripe's API of PaymentIntents.
//
// An authorization is a PaymentIntent, created and confirmed by one request with
// capture_method manual; its id (pi_…) is the operation's. A capture is the
// PaymentIntent's, and its operation the charge (ch_…); a void is the
// PaymentIntent's cancellation; a refund is one of the charge (re_…). Payment
// methods are Stripe's own (pm_…), passed through.
//
// Every request carries the operation's key as its Idempotency-Key. Stripe keeps
// the answer under it for 24 hours at least, a 500 too
// (https://docs.stripe.com/api/idempotent_requests), so that within that time a
// resend does nothing twice. Reference, key and type stand in the metadata, by
// which a lookup finds an operation whose answer was lost.
//
// It imports provider and stripe-go.
package stripe
