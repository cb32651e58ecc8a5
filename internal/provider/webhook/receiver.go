package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/inbox"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
)

// Handler makes the effect of notifications.
type Handler struct {
	// Matters reports whether a notification may have an effect; false is certain. Most say
	// what is known already: such a one costs a read, and nothing is written. nil: each may.
	Matters func(ctx context.Context, n provider.Notification) (bool, error)
	// Handle makes the effect, once, in the transaction that remembers the notification.
	Handle func(ctx context.Context, tx pgx.Tx, n provider.Notification) error
}

// Receiver is safe for concurrent use.
type Receiver struct {
	pool    *pgxpool.Pool
	readers map[string]*provider.Webhooks
	handle  Handler
	results *prometheus.CounterVec
}

// NewReceiver registers payments_provider_notifications_total. Without readers
// every provider is unknown.
func NewReceiver(pool *pgxpool.Pool, handle Handler, reg prometheus.Registerer, readers ...*provider.Webhooks) (*Receiver, error) {
	if pool == nil || handle.Handle == nil || reg == nil {
		return nil, errors.New("a receiver of webhooks needs a pool, a handler and a registerer")
	}
	r := &Receiver{
		pool: pool, handle: handle, readers: map[string]*provider.Webhooks{},
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_provider_notifications_total", Help: "Notifications from a provider, by what became of them.",
		}, []string{"provider", "result"}),
	}
	if err := reg.Register(r.results); err != nil {
		return nil, fmt.Errorf("register the receiver's metrics: %w", err)
	}
	for _, reader := range readers {
		r.readers[reader.Provider()] = reader
		for _, result := range []string{"taken", "no_effect", "duplicate", "unsigned", "unreadable"} {
			r.results.WithLabelValues(reader.Provider(), result)
		}
	}
	return r, nil
}

// Receive returns nil once the notification has had its effect, now or before.
// Its refusals are *payment.Error: not_found for an unknown provider,
// signature_invalid, and validation_failed for a body that is signed and cannot
// be read. After any other error the provider has to deliver again.
func (r *Receiver) Receive(ctx context.Context, name string, h http.Header, body []byte) error {
	reader := r.readers[name]
	if reader == nil {
		return payment.Errorf(payment.CodeNotFound, "No webhooks of this provider are taken here.")
	}
	n, err := reader.Read(h, body)
	if err != nil {
		return r.refusal(name, err)
	}
	if r.handle.Matters != nil {
		matters, err := r.handle.Matters(ctx, n)
		if err != nil {
			return fmt.Errorf("look what notification %s of %s means: %w", n.ID, name, err)
		}
		if !matters {
			r.results.WithLabelValues(name, "no_effect").Inc()
			return nil
		}
	}
	var fresh bool
	err = postgres.InTx(ctx, r.pool, func(tx pgx.Tx) (err error) {
		if fresh, err = inbox.Once(ctx, tx, "provider."+name, n.ID, n.Made); err != nil || !fresh {
			return err
		}
		return r.handle.Handle(ctx, tx, n)
	})
	if err != nil {
		return fmt.Errorf("take notification %s of %s: %w", n.ID, name, err)
	}
	result := "duplicate"
	if fresh {
		result = "taken"
	}
	r.results.WithLabelValues(name, result).Inc()
	return nil
}

func (r *Receiver) refusal(name string, err error) error {
	switch {
	case errors.Is(err, provider.ErrSignature):
		r.results.WithLabelValues(name, "unsigned").Inc()
		return payment.Errorf(payment.CodeSignatureInvalid, "The body is not signed with a secret that is valid here.")
	case errors.Is(err, provider.ErrSignatureTime):
		r.results.WithLabelValues(name, "unsigned").Inc()
		return payment.Errorf(payment.CodeSignatureInvalid, "The body was signed too long ago or in the future.")
	}
	r.results.WithLabelValues(name, "unreadable").Inc()
	return payment.Errorf(payment.CodeInvalid, "The body is no notification of this provider.").Because(err)
}
