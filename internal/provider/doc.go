// Package provider is the port to the payment provider, the bank's side: one
// operation goes out, and its result is Succeeded, Rejected or Unknown. Unknown
// is a result and not an error: whether money moved is then a question for
// Lookup, never a reason to go on or to undo. What the provider tells by webhook is
// no result at all: its signature is checked here, and it says when to ask.
//
// It knows no saga and no database. Of the service it imports secret alone, for
// its comparison.
package provider
