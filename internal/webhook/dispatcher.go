package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/secret"
)

const (
	// attemptTimeout is what a receiver has for its whole answer.
	attemptTimeout = 10 * time.Second
	// lease leaves room behind an attempt for its record and a database that is slow to take it.
	lease = attemptTimeout + 20*time.Second
)

// Config of a Dispatcher. Every member but Resolver, Transport and Crash is needed.
type Config struct {
	Guard  Guard
	Cipher *secret.Cipher
	// Owner tells this dispatcher from all others, living or dead.
	Owner string
	// Concurrency is how many deliveries are under way at once.
	Concurrency int
	// MaxExhausted deliveries in a row whose every attempt failed disable their endpoint.
	MaxExhausted int
	// Resolver and Transport are for tests: another DNS, another trust.
	Resolver  *net.Resolver
	Transport func(*http.Transport)
	// Crash is for tests: where it answers true, an attempt was made and is not recorded.
	Crash      func() bool
	Now        func() time.Time
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Dispatcher delivers what is due. Several processes may run one each.
type Dispatcher struct {
	Config
	pool    *pgxpool.Pool
	client  *http.Client
	slots   chan struct{}
	flight  *flight
	wake    chan struct{}
	inHand  sync.WaitGroup
	ended   ended
	metrics metrics
}

// NewDispatcher registers the payments_webhook_… metrics.
func NewDispatcher(pool *pgxpool.Pool, c Config) (*Dispatcher, error) {
	if pool == nil || c.Cipher == nil || c.Owner == "" || c.Now == nil || c.Log == nil || c.Registerer == nil {
		return nil, errors.New("a dispatcher of webhooks needs a pool, a cipher, an owner, a clock, a logger and a registerer")
	}
	if c.Concurrency < 1 || c.MaxExhausted < 1 {
		return nil, errors.New("a dispatcher of webhooks needs a concurrency and a count of exhausted deliveries of at least 1")
	}
	m, err := newMetrics(c.Registerer)
	if err != nil {
		return nil, err
	}
	f, err := newFlight(c.Now)
	if err != nil {
		return nil, err
	}
	return &Dispatcher{
		Config: c, pool: pool, client: newClient(c), slots: make(chan struct{}, c.Concurrency), flight: f, wake: make(chan struct{}, 1), metrics: m,
	}, nil
}

// Wake hints that a delivery is due; a lost hint costs one polling interval.
func (d *Dispatcher) Wake() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Woken fires after Wake, or when a slot became free.
func (d *Dispatcher) Woken() <-chan struct{} { return d.wake }

// RunOnce claims due deliveries for the free slots, as use.share divides them, and makes their
// attempts in the background; again is true when there may be more and a slot for them.
func (d *Dispatcher) RunOnce(ctx context.Context) (again bool, err error) {
	free := cap(d.slots) - len(d.slots)
	if free == 0 {
		return false, nil
	}
	all, err := d.waiting(ctx)
	if err != nil || len(all) == 0 {
		return false, err
	}
	claimed, err := d.claim(ctx, d.flight.use(cap(d.slots)).share(all))
	if err != nil {
		return false, err
	}
	ctx = context.WithoutCancel(ctx) // what was claimed is finished
	for _, c := range claimed {
		d.slots <- struct{}{}
		ended := d.flight.begin(c)
		d.inHand.Go(func() {
			defer func() {
				ended()
				<-d.slots
				d.Wake()
			}()
			if err := d.deliver(ctx, c); err != nil {
				d.metrics.errors.Inc()
				d.Log.ErrorContext(ctx, "delivery stays leased until its lease ends", "delivery", c.id, "endpoint", c.endpointID, "error", err)
			}
		})
	}
	return len(claimed) == free, nil
}

// Drain waits for the attempts under way, which end within their timeout, and
// closes idle connections.
func (d *Dispatcher) Drain() {
	d.inHand.Wait()
	d.client.CloseIdleConnections()
}

func (d *Dispatcher) deliver(ctx context.Context, c claimed) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if c.url, err = openURL(d.Cipher, c.endpointID, c.url, c.sealedURL); err != nil {
		return err
	}
	secrets := make([]string, len(c.ciphertexts))
	for i, sealed := range c.ciphertexts {
		plain, err := d.Cipher.Decrypt(sealed, SecretData(c.endpointID, int(c.numbers[i])))
		if err != nil {
			return fmt.Errorf("open webhook secret: %w", err)
		}
		secrets[i] = string(plain)
	}
	a, err := d.attempt(ctx, c, secrets)
	if err != nil {
		return err
	}
	d.metrics.seconds.Observe(a.Duration.Seconds())
	if d.Crash != nil && d.Crash() {
		return nil
	}
	return d.conclude(ctx, &conclusion{claimed: c, attempt: a})
}
