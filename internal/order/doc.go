// Package order is the write model of payments: it places orders, and its saga
// reserves stock, authorizes, captures and confirms, or compensates. Each change
// of state appends one event in its own transaction.
//
// What a commit changes is read after its locks, changed in memory, and written once a
// table (unit): a rule of the engine's speed as much as of its correctness.
//
// It imports saga, outbox, idempotency, provider, payment, secret, postgres and groupcommit.
package order
