// Package audit checks the invariants of the service against live state: the
// write model, the read model, and the provider's own ledger. It only reads.
//
// It imports payment and postgres' pool.
package audit
