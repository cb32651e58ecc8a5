package test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"payments/client"
	"payments/internal/devstack"
	"payments/internal/devstack/devtest"
)

// A broker that is away is nobody's business but the relay's and the consumers':
// payments are accepted and carried out as ever, and the events come later.
func TestTheBrokerIsAway(t *testing.T) {
	if os.Getenv("PAYMENTS_TEST_KAFKA_BROKERS") == "" { // else it is the broker of the other tests too
		t.Parallel()
	}
	broker := devtest.RestartableBroker(t)
	w := newWorld(t, parts{brokers: []string{broker.Addr()}})
	s := w.serve(nil)
	l := w.load(random(t), s)
	await(t, settleWithin, func() string { return l.fewer(10) })

	broker.Stop()
	before := l.count()
	wait(t, outage(t))
	during := l.count() - before
	if n := w.count(`SELECT count(*) FROM payments WHERE status = 'succeeded'`); n == 0 {
		t.Error("no payment was carried out while the broker was away")
	}
	broker.Start()
	if during == 0 || len(l.retries) > 0 {
		t.Errorf("%d payments were accepted while the broker was away; requests had to be repeated: %v", during, l.retries)
	}
	l.verify()
	await(t, readyWithin, func() string { return w.answers(s.admin + "/readyz") })
}

// Postgres crashes, and later is shut down: what has to be written meanwhile is
// refused at once, and the service comes back by itself.
func TestPostgresIsAway(t *testing.T) {
	t.Parallel()
	postgres, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := postgres.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := postgres.Provision(t.Context(), "payments"); err != nil {
		t.Fatal(err)
	}
	database := devtest.URLs{
		URL: postgres.URL(devstack.ServiceRole, "payments"), OwnerURL: postgres.URL(devstack.OwnerRole, "payments"),
	}
	if err := migrate(t.Context(), database.OwnerURL, database.URL); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, parts{database: database})
	s := w.serve(nil)
	l := w.load(random(t), s)
	for _, end := range []func() error{postgres.Kill, postgres.Stop} {
		more := l.count() + 10
		await(t, settleWithin, func() string { return l.fewer(more) })
		if err := end(); err != nil {
			t.Fatal(err)
		}
		// Longer than a refusal takes, even on a busy machine; shorter than the service's
		// own patience with a request.
		w.refuses(s, outage(t)/2, 5*time.Second)
		if err := postgres.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.awaitReady()
	}
	l.verify()
}

// A database that neither answers nor refuses is given up on after as long as a
// request may take, and what it was asked may have been done all the same.
func TestPostgresHangs(t *testing.T) {
	t.Parallel()
	database := devtest.Database(t)
	direct, err := url.Parse(database.URL)
	if err != nil {
		t.Fatal(err)
	}
	wire := newWire(t, direct.Host)
	w := newWorld(t, parts{database: database})
	direct.Host = wire.addr()
	s := w.serve(map[string]string{"PAYMENTS_DATABASE_URL": direct.String()})
	l := w.load(random(t), s)
	await(t, settleWithin, func() string { return l.fewer(10) })
	wire.hold()
	w.refuses(s, outage(t)/2, 20*time.Second)
	wire.release()
	s.awaitReady()
	l.verify()
}

// refuses asks for everything, over and over, while the database is away, and
// takes what is not answered within hang for unanswered.
func (w *world) refuses(s *service, during, hang time.Duration) {
	w.t.Helper()
	over := time.After(during)
	for rounds := 0; ; rounds++ {
		var wg sync.WaitGroup
		for _, r := range []struct{ method, path, body string }{
			{http.MethodPost, "/v1/payments", encode(order("A-away", "pm_card_visa"))},
			{http.MethodGet, "/v1/payments", ""},
			{http.MethodGet, "/v1/payments/pay_01jz0000000000000000000000", ""},
			{http.MethodGet, "/v1/payments/pay_01jz0000000000000000000000/timeline", ""},
			{http.MethodGet, "/v1/stock", ""},
		} {
			wg.Go(func() { w.refused(s, r.method, r.path, r.body, hang) })
		}
		wg.Wait()
		if missing := w.answers(s.admin + "/healthz"); missing != "" {
			w.t.Error(missing)
		}
		if w.answers(s.admin+"/readyz") == "" {
			w.t.Error("the service says that it is ready without its database")
		}
		select {
		case <-over:
			w.t.Logf("everything was refused %d times over", rounds+1)
			return
		default:
		}
	}
}

func (w *world) refused(s *service, method, path, body string, hang time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), hang)
	defer cancel()
	a, err := w.send(ctx, method, s.url+path, w.vars["PAYMENTS_API_KEY"], body,
		map[string]string{"Idempotency-Key": "away", "Prefer": "wait=20"})
	if err != nil {
		w.t.Errorf("%s %s: %v", method, path, err)
		return
	}
	if a.status != http.StatusServiceUnavailable || a.header.Get("Content-Type") != "application/problem+json" ||
		a.header.Get("Retry-After") == "" || decode[client.Problem](w.t, a).Code != client.ProblemCodeServiceUnavailable {
		w.t.Errorf("%s %s: %d %v %s", method, path, a.status, a.header, a.body)
	}
}
