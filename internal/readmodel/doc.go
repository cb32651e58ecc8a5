// Package readmodel is the query side: a projector fills one flat row a payment
// from the event log, and queries answer from those rows alone. It lags behind
// the write model, can be thrown away and filled again from the log, and may
// stand in a database of its own.
//
// It imports access, inbox, payment and postgres, never order or saga.
package readmodel
