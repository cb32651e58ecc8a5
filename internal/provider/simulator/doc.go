// Package simulator is the bank's side for the demo and the tests: an HTTP
// server with a durable ledger of its own, so that a crash of the service
// cannot lose what the provider did. Its payment methods and its faults cause
// what a real provider does on a bad day: an answer that is lost, late or
// never given, while the money moved or did not.
//
// An operation is one idempotency key. Nothing is ever applied twice under one
// key, across restarts too. What a crash may lose is what a bank's crash may
// lose: faults that were set, and requests that were received, not answered
// and not yet applied.
//
// With a Webhook every operation newly written is notified, at least once and in
// no order, until the receiver answers 2xx; what is still to be delivered stands
// in the ledger and survives a crash.
//
// It knows nothing of the service and imports none of its packages: the
// standard library, bbolt, json and prometheus only.
package simulator
