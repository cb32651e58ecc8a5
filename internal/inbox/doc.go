// Package inbox applies messages that a broker delivers at least once exactly
// once: the row that says "seen" and the effect commit in one transaction, and
// the caller acknowledges the offset after that. A message that can never be
// applied parks its key: the message and all later ones of its key wait in
// inbox_parked, in order, while the other keys flow on.
//
// It carries bytes and knows no payment. It imports postgres only, so that it
// can be lifted out and used elsewhere.
package inbox
