// Package audit checks the invariants of the service against live state: the
// write model, the read model, and the provider's own ledger. It only reads.
//
// It imports postgres' pool, and those whose constructors the stored rows have to
// pass: payment, access, idempotency and webhook.
package audit
