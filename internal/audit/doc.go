// Package audit checks the invariants of the service against live state: the write
// model, the read model, the provider and the event log. It only reads.
//
// It stays silent about a healthy system under load. What one statement can tell is
// read in one snapshot. Two stores are compared in an order that makes the comparison
// one-sided, and a difference is looked at again: it is a violation only if it lasts
// while neither side moves. Pages and temporary files keep its memory bounded.
//
// It imports postgres' pool, provider for what it inspects, inbox for the log's
// messages, and those whose constructors the stored rows have to pass: payment,
// access, idempotency and webhook.
package audit
