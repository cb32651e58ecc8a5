package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v3"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"payments/internal/access"
	"payments/internal/api"
	"payments/internal/broker"
	"payments/internal/config"
	"payments/internal/idempotency"
	"payments/internal/inbox"
	"payments/internal/loop"
	"payments/internal/order"
	"payments/internal/outbox"
	"payments/internal/postgres"
	"payments/internal/provider"
	"payments/internal/readmodel"
	"payments/internal/rekey"
	"payments/internal/report"
	"payments/internal/saga"
	"payments/internal/secret"
	"payments/internal/telemetry"
	"payments/internal/webhook"
)

// service is one process: the parts that its roles share.
type service struct {
	config.Config
	log               *slog.Logger
	registry          *prometheus.Registry
	monitor           *loop.Monitor
	write             *pgxpool.Pool
	engine            *pgxpool.Pool // the saga worker's, on the same database as write
	read              *pgxpool.Pool
	queries           *readmodel.Queries // on read
	broker            *broker.Client
	traces            *telemetry.Traces
	bank              provider.Provider
	orders            *order.Service
	worker            *saga.Worker
	relaying          atomic.Pointer[outbox.Relay] // nil without the role relay, and before it is made
	inbox             *inbox.Inbox                 // of the projector
	webhookInbox      *inbox.Inbox
	dispatcher        *webhook.Dispatcher // nil without the role webhooks
	oldestUnpublished func(context.Context) (time.Duration, error)

	group     *errgroup.Group
	tooLate   chan struct{} // closed when the drain has run out of time
	abandoned bool          // it has
}

const (
	// drainWithin bounds a drain. After it the process ends, whatever still works: leases,
	// locks and offsets end by themselves, as after a crash.
	drainWithin = 9500 * time.Millisecond
	// answerWithin is how long into the drain clients may wait for an outcome before they are
	// answered with what is known.
	answerWithin = 4 * time.Second
)

// gcPercent is GOGC unless that is set. At full load the live heap is some 20 MiB; with Go's own
// 100 its collection took a seventh of the service's time.
const gcPercent = 400

func (e environment) serveCommand() *cli.Command {
	return &cli.Command{
		Name: "serve", Usage: "run the service in the roles of PAYMENTS_ROLES",
		Description: about("SIGTERM drains within 10 s. Nothing has to be up yet: the service waits for Postgres, Kafka and the provider.",
			"payments serve", "PAYMENTS_ROLES=api,saga payments serve"),
		Action: alone(e.serve),
	}
}

func (e environment) serve(ctx context.Context, _ *cli.Command) error {
	c, err := config.Load(e.lookup)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	s := &service{Config: c, log: telemetry.NewLogger(e.stderr, c.Log.Level, c.Log.Format), registry: prometheus.NewRegistry(), tooLate: make(chan struct{})}
	describeProcess(s.registry)
	s.monitor = loop.NewMonitor(time.Now, s.registry)
	if s.traces, err = telemetry.NewTraces(ctx, telemetry.TraceConfig{
		Endpoint: c.Traces.Endpoint, Ratio: c.Traces.Ratio, Version: version, Log: s.log,
	}); err != nil {
		return usagef("PAYMENTS_TRACES_ENDPOINT: %w", err)
	}
	defer func() {
		if err := s.traces.Close(ctx); err != nil {
			s.log.WarnContext(ctx, "traces lost", "error", err)
		}
	}()
	if err := s.connect(ctx); err != nil {
		return err
	}
	defer s.disconnect()
	return s.run(ctx)
}

// connect opens what the roles need. Nothing has to be up yet. A database that answers and
// does not fit this program stops the start (checkDatabases).
func (s *service) connect(ctx context.Context) (err error) {
	if s.write, err = postgres.OpenMigrated(ctx, s.DatabaseURL); err != nil {
		return usagef("PAYMENTS_DATABASE_URL %w", err)
	}
	if s.engine, err = postgres.OpenEngine(ctx, s.DatabaseURL); err != nil {
		return usagef("PAYMENTS_DATABASE_URL %w", err)
	}
	s.read = s.write
	if s.ReadDatabaseURL != s.DatabaseURL {
		if s.read, err = postgres.OpenMigrated(ctx, s.ReadDatabaseURL); err != nil {
			return usagef("PAYMENTS_READ_DATABASE_URL %w", err)
		}
	}
	s.queries = readmodel.NewQueries(s.read)
	s.registry.MustRegister(s.pools())
	if s.broker, err = newBroker(s.KafkaBrokers, s.KafkaPrefix, s.Kafka, s.traces.Recorder()); err != nil {
		return err
	}
	bank, err := newProvider(s.Bank, s.ProviderCalls)
	if err != nil {
		return err
	}
	if s.inbox, err = newInbox(s.read, s.Config, s.log, s.registry); err != nil {
		return err
	}
	if s.webhookInbox, err = newWebhookInbox(s.write, s.Config, s.log, s.registry); err != nil {
		return err
	}
	s.oldestUnpublished = func(ctx context.Context) (time.Duration, error) { return outbox.OldestUnpublished(ctx, s.write) }
	s.bank = provider.Instrument(bank, s.traces.Tracer(), s.registry)
	s.orders = order.New(order.Config{
		Pool: s.write, Engine: s.engine, IDs: generator(), Cipher: s.Cipher, Methods: s.methods(), Provider: s.bank, Former: s.ProviderFormer, Due: s.due, Wrote: s.wrote, Worker: s.starter,
		Deadline: s.OrderDeadline, CaptureWindow: s.CaptureWindow, Horizon: s.ProviderHorizon,
	})
	s.worker, err = saga.NewWorker(s.engine, saga.Config{
		Definitions: s.orders.Sagas(), Owner: owner(), Open: s.orders.Open, Prepare: s.orders.Prepare, Only: s.orders.Only(), Committed: s.committed,
		CallTimeout: s.ProviderTimeout + 100*time.Millisecond, Lease: s.ProviderTimeout + 5*time.Second,
		Concurrency: s.SagaConcurrency, Calls: s.ProviderCalls, Now: time.Now, Log: s.log, Registerer: s.registry,
		Policy: saga.Policy{
			Horizon: s.ProviderHorizon, KeyLifetime: 23 * time.Hour, Backoff: retryPause(5 * time.Second),
			UndoBackoff: retryPause(30 * time.Second), Shut: func() time.Duration { return retryPause(2 * time.Second)(10) },
		},
	})
	if err != nil {
		return err
	}
	if err := s.checkDatabases(ctx); err != nil && !postgres.Unavailable(err) {
		return err
	}
	return nil
}

// due is called after commits that made a saga due, most of which also wrote an event.
func (s *service) due() {
	s.worker.Wake()
	s.wrote()
}

// committed is called after commits of the worker, most of which wrote an event.
func (s *service) committed() {
	s.orders.Changed()
	s.wrote()
}

// wrote is called after commits that wrote events.
func (s *service) wrote() {
	if r := s.relaying.Load(); r != nil {
		r.Wake()
	}
}

// starter is the worker in whose hand placed orders begin: this process's, if it drives sagas.
func (s *service) starter() *saga.Worker {
	if s.Roles.Has(config.RoleSaga) {
		return s.worker
	}
	return nil
}

func (s *service) methods() *secret.Tokens { return order.PaymentMethods(s.Pepper, s.Cipher) }

func newBroker(brokers []string, prefix string, k config.Kafka, tracer trace.Tracer) (*broker.Client, error) {
	c, err := broker.NewClient(brokers, broker.Config{
		Prefix: prefix, Tracer: tracer,
		ReplicationFactor: k.ReplicationFactor, MinInSync: k.MinInSync, Retention: k.Retention,
		TLS: k.TLS, SASL: broker.SASL{Mechanism: k.SASLMechanism, Username: k.Username, Password: k.Password},
	})
	if err != nil {
		return nil, usagef("PAYMENTS_KAFKA_BROKERS: %w", err)
	}
	return c, nil
}

// owner names this process in leases, for people, and tells it from all others.
func owner() string {
	host, _ := os.Hostname() // its absence only makes the name less telling
	return fmt.Sprintf("%s:%d:%s", host, os.Getpid(), rand.Text()[:8])
}

// retryPause doubles from 200 ms to most, less up to half of it at random.
func retryPause(most time.Duration) func(try int) time.Duration {
	return func(try int) time.Duration {
		pause := min(200*time.Millisecond<<min(try-1, 10), most)
		return pause - mathrand.N(pause/2) //nolint:gosec // jitter is no secret
	}
}

// disconnect closes what connect opened, within what is left of the drain: a pool waits for its
// connections, and a Postgres that does not answer keeps them.
func (s *service) disconnect() {
	if s.abandoned {
		return
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.broker.Close()
		s.write.Close()
		s.engine.Close()
		if s.read != s.write {
			s.read.Close()
		}
	}()
	select {
	case <-closed:
	case <-s.tooLate:
	}
}

// run until ctx ends, and then drains: the API accepts nothing more and answers the requests it
// has, waiting clients with their outcome if it comes soon. Only then the loops, which work for
// those requests, finish what they have in hand. One part that fails ends all.
func (s *service) run(ctx context.Context) error {
	group, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	s.group = group
	working, stop := context.WithCancel(failed)
	defer stop()
	accepting, refuse := context.WithCancel(working)
	defer refuse()
	detach := context.AfterFunc(ctx, refuse)
	defer detach()
	err := s.begin(accepting, working, stop)
	if err != nil {
		stop()
	}
	ended := make(chan error, 1)
	go func() {
		err := s.group.Wait()
		s.worker.Drain()
		if s.dispatcher != nil {
			s.dispatcher.Drain()
		}
		counting, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := rekey.AddUses(counting, s.write, s.Cipher); err != nil {
			s.log.WarnContext(ctx, "the last uses of the encryption key are not counted", "error", err)
		}
		ended <- err
	}()
	context.AfterFunc(accepting, func() { time.AfterFunc(drainWithin, func() { close(s.tooLate) }) })
	select {
	case e := <-ended:
		err = errors.Join(err, e)
		s.log.InfoContext(ctx, "service stopped", "error", err)
	case <-s.tooLate:
		s.abandoned = true
		s.log.WarnContext(ctx, "service stopped before all its work was done; its leases end by themselves", "waited", drainWithin.String())
	}
	return err
}

// begin starts the parts of every role. The API calls stop when it has answered
// its last request.
func (s *service) begin(accepting, working context.Context, stop func()) error {
	if s.Roles.Has(config.RoleAPI) {
		if err := s.serveAPI(accepting, working, stop); err != nil {
			return err
		}
	} else {
		context.AfterFunc(accepting, stop)
	}
	// After the API's address, since it says that the service is ready.
	if err := s.serveAdmin(working); err != nil {
		return err
	}
	s.group.Go(func() error { return s.awaitDatabases(working) })
	uses, err := rekey.NewUses(s.write, s.Cipher, s.registry)
	if err != nil {
		return err
	}
	s.loop(working, "encryption_uses", 30*time.Second, uses.RunOnce, nil)
	if err := s.keepOutbox(working); err != nil {
		return err
	}
	if s.Roles.Has(config.RoleSaga) || s.Roles.Has(config.RoleAPI) {
		s.loop(working, "provider_account", 10*time.Second, newAccountWatch(s).runOnce, nil)
	}
	if s.Roles.Has(config.RoleSaga) {
		s.loop(working, "saga", 100*time.Millisecond, s.worker.RunOnce, s.worker.Woken())
		s.loop(working, "saga_metrics", 5*time.Second, s.worker.Measure, nil)
		if err := s.reconcileProvider(working); err != nil {
			return err
		}
	}
	if s.Roles.Has(config.RoleRelay) {
		if err := s.relay(working); err != nil {
			return err
		}
	}
	if s.Roles.Has(config.RoleProjector) {
		s.project(working)
	}
	if s.Roles.Has(config.RoleWebhooks) {
		if err := s.dispatchWebhooks(working); err != nil {
			return err
		}
	}
	if s.Roles.Has(config.RoleReports) {
		if err := s.refreshReports(working); err != nil {
			return err
		}
	}
	if s.Roles.Has(config.RoleRelay) || s.Roles.Has(config.RoleProjector) || s.Roles.Has(config.RoleWebhooks) {
		s.measureLag(working)
	}
	if s.Roles.Has(config.RoleAPI) || s.Roles.Has(config.RoleProjector) || s.Roles.Has(config.RoleWebhooks) {
		s.loop(working, "inbox_partitions", 10*time.Second, s.maintainInboxes, nil)
	}
	return nil
}

func (s *service) loop(ctx context.Context, name string, interval time.Duration, turn func(context.Context) (bool, error), wake <-chan struct{}) {
	s.group.Go(func() error {
		return loop.Run(ctx, loop.Config{Name: name, Interval: interval, RunOnce: turn, Wake: wake, Monitor: s.monitor, Log: s.log})
	})
}

func (s *service) serveAPI(accepting, working context.Context, done func()) error {
	notifications, err := s.providerWebhooks()
	if err != nil {
		return err
	}
	authorizer, err := access.NewAuthorizer(s.log, s.registry)
	if err != nil {
		return err
	}
	authenticator := access.NewAuthenticator(s.write, s.Pepper)
	s.loop(working, "key_usage", 10*time.Second, authenticator.RunOnce, nil)
	acts, err := access.NewActGauge(s.write, s.registry)
	if err != nil {
		return err
	}
	s.loop(working, "key_acts", 30*time.Second, acts.RunOnce, nil)
	streams, err := api.NewStreams(api.StreamsConfig{
		Followers: readmodel.NewFollowers(s.read), Keys: authenticator, Now: time.Now, Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	s.loop(working, "streams", 20*time.Millisecond, streams.RunOnce, nil)
	context.AfterFunc(accepting, streams.Drain)
	admission, err := api.NewAdmission(api.AdmissionConfig{
		Count: s.orders.Unfinished(s.engine).Count, Most: s.UnfinishedPayments, Oldest: s.UnfinishedAge,
		Now: time.Now, Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	s.loop(working, "unfinished", api.PollUnfinished, admission.RunOnce, nil)
	answer, answerNow := context.WithCancel(working)
	context.AfterFunc(accepting, func() { time.AfterFunc(answerWithin, answerNow) })
	handler, err := api.New(api.Config{
		Admission: admission,
		Orders:    s.orders, Payments: s.queries, Streams: streams, DeadLetters: s.deadLetters(), ProviderWebhooks: notifications, Webhooks: s.webhookStore(),
		Reports:       report.NewQueries(s.write),
		Authenticator: authenticator, Authorizer: authorizer, Keys: access.NewKeys(s.write, s.Pepper, generator(), s.log),
		Cipher: s.Cipher, Methods: s.methods(), Cursors: s.Pepper, IDs: generator(), Tracer: s.traces.Tracer(), Log: s.log, Registerer: s.registry,
		Held: api.HeldLimits{
			Waits: s.Held.Waits, WaitsOfMerchant: s.Held.WaitsPerMerchant, Streams: s.Held.Streams, StreamsOfMerchant: s.Held.StreamsPerMerchant,
			Exports: s.Held.Exports, ExportsOfMerchant: s.Held.ExportsPerMerchant,
		},
		Closing: answer,
		RateLimits: api.RateLimits{
			PerSecond: s.RateLimit, Burst: s.RateBurst, UnauthenticatedPerSecond: s.UnauthenticatedLimit, UnauthenticatedBurst: s.UnauthenticatedBurst, Now: time.Now,
		},
	})
	if err != nil {
		return err
	}
	s.loop(working, "idempotency_reaper", time.Minute, func(ctx context.Context) (bool, error) {
		n, err := idempotency.Reap(ctx, s.write, idempotency.Retention, 1000)
		return n == 1000, err
	}, nil)
	server := api.NewServer(handler, s.log)
	if s.TLSCert != "" {
		if server.TLSConfig, err = api.NewTLSConfig(s.TLSCert, s.TLSKey, s.log); err != nil {
			return usagef("PAYMENTS_TLS_CERT and PAYMENTS_TLS_KEY %w", err)
		}
	}
	return s.listen(accepting, "PAYMENTS_ADDR", s.Addr, server, done)
}

func (s *service) serveAdmin(ctx context.Context) error {
	server := api.NewServer(api.NewAdmin(api.AdminConfig{
		Gatherer: s.registry, Monitor: s.monitor, Log: s.log,
		Database: func(ctx context.Context) error { return postgres.Ready(ctx, s.write) },
		// Requests need no loop: a process with the role api is ready while Postgres answers.
		Loops: !s.Roles.Has(config.RoleAPI),
		Hosts: s.AdminHosts,
	}), s.log)
	return s.listen(ctx, "PAYMENTS_ADMIN_ADDR", s.AdminAddr, server, func() {})
}

// listen returns once the address is bound; done is called after the last answer.
func (s *service) listen(ctx context.Context, variable, addr string, server *http.Server, done func()) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("%s: %w", variable, err)
	}
	s.log.InfoContext(ctx, "listening", "variable", variable, "addr", l.Addr().String())
	s.group.Go(func() error {
		defer done()
		return serveUntil(ctx, server, l, s.log, nil)
	})
	return nil
}

// relay publishes this process's share of the outbox: as many shards as the topic
// has partitions, so that a partition that refuses holds up no other.
func (s *service) relay(ctx context.Context) error {
	var publisher outbox.Publisher = broker.NewPublisher(s.broker)
	if s.Kafka.Fencing {
		publisher = broker.NewFencer(s.broker)
	}
	t := &topic{service: s}
	s.loop(ctx, "topic", time.Minute, t.runOnce, nil)
	r, err := outbox.NewRelay(s.write, publisher, outbox.RelayConfig{
		Owner: owner(), Shards: s.KafkaPartitions, Ready: t.fit.Load, Tail: publishedTail(s.broker), Registerer: s.registry, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.relaying.Store(r)
	s.group.Go(func() error {
		err := loop.Run(ctx, loop.Config{Name: "relay", Interval: outbox.Longest, RunOnce: r.RunOnce, Rest: r.Rest, Wake: r.Woken(), Monitor: s.monitor, Log: s.log})
		give, cancel := context.WithTimeout(context.WithoutCancel(ctx), 4*time.Second)
		defer cancel()
		if rerr := r.Release(give); rerr != nil {
			s.log.WarnContext(give, "the relay's lease ends by itself", "error", rerr)
		}
		return err
	})
	return nil
}

// keepOutbox runs in every role: whoever fills partitions also makes them.
func (s *service) keepOutbox(ctx context.Context) error {
	k, err := outbox.NewKeeper(s.write, outbox.KeeperConfig{
		Size: int64(s.Outbox.PartitionSize), Retention: s.Outbox.Retention, Registerer: s.registry, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.loop(ctx, "outbox_keeper", 5*time.Second, k.RunOnce, nil)
	return nil
}
