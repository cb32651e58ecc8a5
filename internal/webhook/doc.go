// Package webhook tells merchants of their payments' events, by signed POSTs to
// the endpoints that they name (Standard Webhooks 1.0,
// https://www.standardwebhooks.com).
//
// An event becomes one row for each endpoint that asked for it, in the inbox's
// transaction (Fanout), and is delivered afterwards by a Dispatcher, at least
// once, under the row's id, which stays the same over retries. Between an attempt
// and its record a process can die, and its lease's end hands the delivery on:
// the receiver sees the same id again. The order of deliveries is not promised:
// each has its event's sequence within the order.
//
// Merchants name the addresses, so each one is checked when it is dialed (Guard):
// what a name resolved to earlier says nothing.
//
// The incoming side, what a payment provider tells us, is internal/provider/webhook.
//
// It imports access (for its Scope), idempotency, inbox, payment, postgres and
// secret, never order or saga: events are the only bridge.
package webhook
