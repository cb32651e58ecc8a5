// Package textbook is the service as one would write it after reading about sagas, outboxes and inboxes:
// one transaction a step, one INSERT a message, a published flag, one message a consumer's transaction.
// It pools connections, and pgx prepares its statements. It is honest work, and what the service is
// measured against.
//
// It does less than the service: no row-level security, no encryption, no webhooks, no notifications of
// the provider, no compensation, no fencing. A declined card fails the payment and frees the stock.
package textbook
