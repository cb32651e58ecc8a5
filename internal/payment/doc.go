// Package payment is the domain: money, identifiers, orders, the states of a
// payment and the events that tell of them. A value of one of its types that
// exists is valid: the constructors here are the only way to make one, and
// every writer (API, command line, seed, consumer) goes through them. The
// database repeats each rule as a constraint (migrations/).
//
// It imports the standard library, and golang.org/x/text for Unicode's normalization
// (docs/decisions/business-keys.md).
package payment
