package readmodel

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/broker"
	"payments/internal/devstack/devtest"
	"payments/internal/idempotency"
	"payments/internal/inbox"
	"payments/internal/loop"
	"payments/internal/order"
	"payments/internal/outbox"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
	"payments/internal/provider/simulator"
	"payments/internal/saga"
	"payments/internal/secret/secrettest"
)

// shop is a merchant's whole pipeline: the write model, its sagas, the bank, the
// relay, a broker, and the read model behind it, in the same database or another.
type shop struct {
	t                  *testing.T
	write, read, owner *pgxpool.Pool // owner: of the read model's database
	writeOwner         *pgxpool.Pool
	client             *broker.Client
	orders             *order.Service
	queries            *Queries
	merchant           string
	posted             atomic.Int64
	stopSagas          func()
}

func newShop(t *testing.T, separate bool) *shop {
	t.Helper()
	open := func(url string) *pgxpool.Pool {
		pool, err := postgres.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		return pool
	}
	db := devtest.Database(t)
	s := &shop{t: t, write: open(db.URL), writeOwner: open(db.OwnerURL)}
	s.read, s.owner = s.write, s.writeOwner
	if separate {
		db := devtest.Database(t)
		s.read, s.owner = open(db.URL), open(db.OwnerURL)
	}
	s.queries = NewQueries(s.read)
	var err error
	if s.client, err = broker.NewClient(devtest.Brokers(t), broker.Config{Prefix: devtest.Topic(t) + "."}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	if err := s.client.EnsureTopic(t.Context(), payment.Topic, 4); err != nil {
		t.Fatal(err)
	}
	ids := payment.Generator{Now: time.Now, Random: rand.Reader}
	s.merchant = ids.New(payment.PrefixMerchant)
	if _, err := s.write.Exec(t.Context(), `INSERT INTO merchants (id, name) VALUES ($1, 'Shop')`, s.merchant); err != nil {
		t.Fatal(err)
	}
	s.work(ids)
	stock, err := payment.NewStock("", s.merchant, "TSHIRT-M", 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.orders.SetStock(t.Context(), []payment.Stock{stock}); err != nil {
		t.Fatal(err)
	}
	return s
}

// work runs the sagas and the relay until the test ends.
func (s *shop) work(ids payment.Generator) {
	s.t.Helper()
	log := slog.New(slog.DiscardHandler)
	sim, err := simulator.Open(filepath.Join(s.t.TempDir(), "ledger.db"), simulator.Config{Log: log, Registerer: prometheus.NewRegistry()})
	if err != nil {
		s.t.Fatal(err)
	}
	server := httptest.NewServer(sim.Handler())
	bank, err := provider.NewHTTP(server.URL, provider.HTTPConfig{Timeout: time.Second})
	if err != nil {
		s.t.Fatal(err)
	}
	pepper, cipher := secrettest.Keys(s.t)
	s.orders = order.New(order.Config{
		Pool: s.write, IDs: ids, Cipher: cipher, Methods: order.PaymentMethods(pepper, cipher), Provider: bank, Deadline: time.Hour, CaptureWindow: time.Hour, Horizon: time.Second,
	})
	pause := func(int) time.Duration { return 20 * time.Millisecond }
	worker, err := saga.NewWorker(s.write, saga.Config{
		Definitions: s.orders.Sagas(), Owner: rand.Text(), CallTimeout: 2 * time.Second, Lease: 5 * time.Second, Concurrency: 32,
		Open: s.orders.Open, Prepare: s.orders.Prepare, Now: time.Now, Log: log, Registerer: prometheus.NewRegistry(),
		Policy: saga.Policy{Horizon: time.Second, KeyLifetime: time.Hour, Backoff: pause, UndoBackoff: pause, Shut: func() time.Duration { return 20 * time.Millisecond }},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	relay, err := outbox.NewRelay(s.write, broker.NewPublisher(s.client), outbox.RelayConfig{
		Owner: rand.Text(), Shards: 4, Registerer: prometheus.NewRegistry(), Log: log,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.stopSagas = s.loop("saga", worker.RunOnce)
	stopRelay := s.loop("relay", relay.RunOnce)
	s.t.Cleanup(func() {
		s.stopSagas()
		worker.Drain()
		stopRelay()
		_ = relay.Release(context.WithoutCancel(s.t.Context()))
		bank.Close()
		server.Close()
		if err := sim.Close(); err != nil {
			s.t.Error(err)
		}
	})
}

func (s *shop) loop(name string, turn func(context.Context) (bool, error)) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = loop.Run(ctx, loop.Config{Name: name, Interval: 10 * time.Millisecond, RunOnce: turn,
			Monitor: loop.NewMonitor(time.Now, prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler)})
	})
	return func() { cancel(); wg.Wait() }
}

func (s *shop) projector() *inbox.Inbox {
	s.t.Helper()
	in, err := NewProjector().NewInbox(s.read, "payment_view",
		inbox.Config{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		s.t.Fatal(err)
	}
	return in
}

// project consumes until stop, or the test's end.
func (s *shop) project() (stop func()) {
	s.t.Helper()
	in := s.projector()
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	done := make(chan error, 1)
	go func() {
		done <- s.client.Consume(ctx, broker.ConsumerConfig{
			Group: "payment_view", Topic: payment.Topic, Heartbeat: func() {}, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		}, in)
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				s.t.Errorf("Consume: %v", err)
			}
		})
	}
	s.t.Cleanup(stop)
	return stop
}

// post places an order, one of a few kinds in turn, and asks for what follows.
func (s *shop) post(ctx context.Context) error {
	n := s.posted.Add(1)
	capture, method := payment.CaptureAutomatic, "pm_card_visa"
	switch n % 4 {
	case 1:
		method = "pm_card_declined"
	case 2:
		capture = payment.CaptureManual
	}
	o, err := payment.NewOrder(payment.Draft{
		Amount: 4998, Currency: "EUR", PaymentMethod: method, CustomerReference: "cust-1", CustomerEmail: "ada@example.com",
		OrderReference: fmt.Sprintf("A-%d", n), CaptureMethod: string(capture),
		Lines: []payment.DraftLine{{SKU: "TSHIRT-M", Quantity: 1, UnitAmount: 2499}, {SKU: "TSHIRT-M", Quantity: 1, UnitAmount: 2499}},
	})
	if err != nil {
		return err
	}
	kept := idempotency.Response{Status: 202, Header: map[string]string{}, Body: []byte("{}")}
	resp, _, err := s.orders.Place(ctx, idempotency.Request{MerchantID: s.merchant, Key: rand.Text()}, o, func(p order.Placed) (idempotency.Response, error) {
		r := kept
		r.ResourceID = p.PaymentID
		return r, nil
	})
	if err != nil {
		return err
	}
	if n%8 == 2 {
		_, err = s.orders.Cancel(ctx, s.merchant, resp.ResourceID)
	}
	if refused := (&payment.Error{}); errors.As(err, &refused) {
		return nil // it was captured first
	}
	return err
}

func (s *shop) posts(n int) {
	s.t.Helper()
	for range n {
		if err := s.post(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
	}
}

// refund asks for a part of every succeeded payment back.
func (s *shop) refund() {
	s.t.Helper()
	var ids []string
	if err := s.write.QueryRow(s.t.Context(), `SELECT coalesce(array_agg(id), '{}') FROM payments WHERE status = 'succeeded'`).Scan(&ids); err != nil {
		s.t.Fatal(err)
	}
	amount := int64(999)
	wanted, err := payment.NewRefund(&amount, "returned")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, id := range ids {
		if _, _, err := s.orders.Refund(s.t.Context(), idempotency.Request{MerchantID: s.merchant, Key: rand.Text()}, id, wanted,
			func(r order.Refunding) (idempotency.Response, error) {
				return idempotency.Response{ResourceID: r.ID, Status: 202, Header: map[string]string{}, Body: []byte("{}")}, nil
			}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// awaits polls the database until the count is zero.
func awaits(t *testing.T, what string, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // a million's sagas take their time
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := -1; n != 0; {
		if err := pool.QueryRow(ctx, sql, args...).Scan(&n); err != nil {
			t.Fatalf("%s: %d to go: %v", what, n, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %d to go", what, n)
		}
	}
}

// rests waits until no saga is under way.
func (s *shop) rests() {
	s.t.Helper()
	awaits(s.t, "sagas", s.write, `SELECT count(*) FROM sagas WHERE due_at IS NOT NULL AND (NOT awaiting OR signaled OR abort IS NOT NULL)`)
}

// settles waits for the sagas and for the projection of all they told.
func (s *shop) settles() {
	s.t.Helper()
	s.rests()
	var sequences int64
	if err := s.write.QueryRow(s.t.Context(), `SELECT sum(sequence)::bigint FROM orders`).Scan(&sequences); err != nil {
		s.t.Fatal(err)
	}
	awaits(s.t, "events to be projected", s.read, `SELECT $1 - coalesce(sum(sequence), 0)::bigint FROM payment_view`, sequences)
}

// contents is everything that the read model holds, as text.
func (s *shop) contents() []string {
	s.t.Helper()
	return (&world{t: s.t, pool: s.read}).contents()
}

func (s *shop) rebuild(change ...func(*RebuildConfig)) (Rebuilt, error) {
	s.t.Helper()
	return s.rebuildIn(s.t.Context(), change...)
}

func (s *shop) rebuildIn(ctx context.Context, change ...func(*RebuildConfig)) (Rebuilt, error) {
	s.t.Helper()
	c := RebuildConfig{
		Write: s.write, Read: s.owner, Log: s.client, Topic: payment.Topic, Consumer: "payment_view", Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&c)
	}
	return Rebuild(ctx, c)
}

// leftovers is what a rebuild has left behind.
func (s *shop) leftovers() (n int) {
	s.t.Helper()
	if err := s.owner.QueryRow(s.t.Context(), `
		SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'payment_view_next')
			+ (SELECT count(*) FROM inbox_messages WHERE consumer <> 'payment_view') + (SELECT count(*) FROM inbox_offsets WHERE consumer <> 'payment_view')
			+ (SELECT count(*) FROM inbox_parked_keys WHERE consumer <> 'payment_view')`).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// traffic posts and queries until stop, which says how many of each it made, and how
// long the slowest page took with its payments. Any that fails is an error of the test.
func (s *shop) traffic() (stop func() (posts, queries int64, slowest time.Duration)) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	scope := merchant(s.t, s.merchant)
	var wg sync.WaitGroup
	var posts, queries, slowest atomic.Int64
	failed := func(what string, err error) bool {
		if err != nil && ctx.Err() == nil {
			s.t.Errorf("%s: %v", what, err)
		}
		return err != nil
	}
	// Small readers: what is asked, and not how much of it at once, is what counts.
	pause := time.NewTicker(10 * time.Millisecond)
	s.t.Cleanup(pause.Stop)
	wg.Go(func() {
		for !failed("post", s.post(ctx)) {
			posts.Add(1)
			select {
			case <-pause.C:
			case <-ctx.Done():
				return
			}
		}
	})
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				begun := time.Now()
				page, err := s.queries.List(ctx, scope, Filter{Limit: 3})
				if failed("list", err) {
					return
				}
				for _, p := range page.Payments {
					_, err := s.queries.Timeline(ctx, scope, p.ID, 0, 1000)
					_, err2 := s.queries.Refunds(ctx, scope, p.ID, "", 10)
					if failed("read", errors.Join(err, err2)) {
						return
					}
					queries.Add(4) // each of the two reads the payment first
				}
				queries.Add(1)
				took := int64(time.Since(begun))
				for is := slowest.Load(); took > is && !slowest.CompareAndSwap(is, took); is = slowest.Load() {
				}
			}
		})
	}
	return func() (int64, int64, time.Duration) {
		cancel()
		wg.Wait()
		return posts.Load(), queries.Load(), time.Duration(slowest.Load())
	}
}

func (s *shop) publish(m inbox.Message) {
	s.t.Helper()
	out := outbox.Message{Topic: payment.Topic, Key: string(m.Key), Payload: m.Value}
	for name, value := range m.Headers {
		out.Headers = append(out.Headers, outbox.Header{Key: name, Value: value})
	}
	if err := broker.NewPublisher(s.client).Publish(s.t.Context(), []outbox.Message{out}); err != nil {
		s.t.Fatal(err)
	}
}
