package simulator

import (
	cryptorand "crypto/rand"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config of a Simulator. Each zero value has a default.
type Config struct {
	Clock      Clock                 // the system's
	Log        *slog.Logger          // none; requests are logged at debug
	Rand       rand.Source           // seeded by the system; of ids and of faults' rates
	Registerer prometheus.Registerer // none

	AuthorizationLifetime time.Duration // 168 h: of those made from now on
	Webhook               Webhook       // none
}

// Simulator serves until Close. One process at a time has a ledger open.
type Simulator struct {
	ledger  *ledger
	faults  *faults
	delays  *delays
	log     *slog.Logger
	clock   Clock
	handler http.Handler

	notifier *notifier // nil without a webhook

	operations *prometheus.CounterVec // type, status: those in the ledger
	strikes    *prometheus.CounterVec // operation, kind
	closing    sync.Once
	closed     error
}

// Open opens the ledger at path or makes it, with its directory. Its error is
// one sentence for a person.
func Open(path string, cfg Config) (*Simulator, error) {
	if cfg.Clock == nil {
		cfg.Clock = systemClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Rand == nil {
		var seed [32]byte
		_, _ = cryptorand.Read(seed[:]) // never fails, by its documentation
		cfg.Rand = rand.NewChaCha8(seed)
	}
	if cfg.AuthorizationLifetime == 0 {
		cfg.AuthorizationLifetime = 168 * time.Hour
	}
	source := &lockedSource{source: cfg.Rand}
	s := &Simulator{
		faults: &faults{clock: cfg.Clock, random: rand.New(source)},
		delays: newDelays(cfg.Clock),
		log:    cfg.Log,
		clock:  cfg.Clock,
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_simulator_operations_total",
			Help: "Operations written to the simulator's ledger.",
		}, []string{"type", "status"}),
		strikes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_simulator_strikes_total",
			Help: "Requests that a fault or a payment method struck.",
		}, []string{"operation", "kind"}),
	}
	deliveries := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "payments_simulator_notifications_total",
		Help: "Attempts to deliver a notification, by what became of them.",
	}, []string{"result"})
	if cfg.Registerer != nil {
		for _, c := range []prometheus.Collector{s.operations, s.strikes, deliveries} {
			if err := cfg.Registerer.Register(c); err != nil {
				return nil, fmt.Errorf("register the simulator's metrics: %w", err)
			}
		}
	}
	var err error
	if s.ledger, err = openLedger(path, cfg, source); err != nil {
		return nil, err
	}
	if cfg.Webhook.URL != "" {
		s.notifier = startNotifier(s, cfg.Webhook, deliveries)
	}
	s.handler = s.logged(s.routes())
	return s, nil
}

// Handler needs an HTTP/1 server: a lost answer is a connection that ends.
func (s *Simulator) Handler() http.Handler { return s.handler }

// Close ends the requests that are held, drops late applications that are still
// to come, waits for those under way and closes the ledger. A request after it
// is answered 503. Notifications that are not delivered stay in the ledger.
// Close before http.Server.Shutdown, which would else wait for
// held requests.
func (s *Simulator) Close() error {
	s.closing.Do(func() {
		s.delays.close()
		s.notifier.close()
		s.closed = s.ledger.close()
	})
	return s.closed
}

// lockedSource lets the ledger and the faults share one source.
type lockedSource struct {
	mu     sync.Mutex
	source rand.Source
}

func (l *lockedSource) Uint64() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.source.Uint64()
}
