// Package seed fills both models with payments that have ended long ago, as years
// of operation leave them: unevenly over merchants, customers and outcomes, past the
// retention of idempotency keys and outbox. Every order goes through the domain's
// constructor; the rows go in by COPY.
//
// It imports payment, postgres and readmodel/term.
package seed
