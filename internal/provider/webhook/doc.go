// Package webhook takes in what a payment provider tells of its own accord: it
// checks who signed it, deduplicates it, and hands it on, in one transaction.
//
// It imports provider, inbox, postgres and payment (for coded errors); what a
// notification means is the handler's to say.
package webhook
