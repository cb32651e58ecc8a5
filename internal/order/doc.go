// Package order is the write model of payments: it places orders, and its saga
// reserves stock, authorizes, captures and confirms, or compensates. Each change
// of state appends one event in its own transaction.
//
// It imports saga, outbox, idempotency, provider, payment, secret and postgres.
package order
