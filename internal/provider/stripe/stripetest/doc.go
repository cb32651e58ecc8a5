// Package stripetest is a stand-in of Stripe's API over HTTP, for tests.
//
// A Server holds several accounts, each known by its API keys, as api.stripe.com
// does. An account keeps PaymentIntents, charges, refunds, disputes, events and
// idempotency keys. A test changes an account as a person at Stripe's dashboard
// or the customer's bank would (Account.FailRefund, Account.CaptureOutside, …),
// and makes requests fail (Server.Break).
//
// The fields, states and error codes are those of Stripe's API reference
// (https://docs.stripe.com/api) as far as package stripe reads or sends them.
// Nothing here imports package stripe: the stand-in must not share its mistakes.
package stripetest
