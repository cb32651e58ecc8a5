package counts

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"payments/bench/load"
	"payments/bench/meter"
	"payments/bench/stack"
)

var update = flag.Bool("update", false, "write the baseline instead of holding the counts against it")

const (
	baselinePath = "baseline.json"
	payments     = 200
	warmup       = 20
	within       = 2 * time.Minute
)

// The stages in their order: what the first leaves is the backlog of the others.
var stages = []string{"api,saga", "relay", "projector", "webhooks"}

// groups of the consumers, by role, without what all groups begin with.
var groups = map[string]string{"projector": "payment_view", "webhooks": "webhooks"}

// The stack starts this program again as its broker.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == stack.BrokerCommand {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err := stack.RunBroker(ctx, os.Args[2:])
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(m.Run())
}

func TestAPaymentCostsNoMoreThanItsBaseline(t *testing.T) {
	now := measure(t)
	baseline, err := readBaseline(baselinePath)
	if err != nil && !*update {
		t.Fatal(err)
	}
	table, grown, lower := compare(baseline, now, stages)
	t.Logf("of one payment:\n%s", table)
	if *update {
		if err := now.write(baselinePath); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, g := range grown {
		t.Error(g)
	}
	if len(grown) > 0 {
		t.Error("if the growth is worth it: make counts-baseline, and say in the commit what it buys")
	}
	if len(lower) > 0 {
		t.Logf("the baseline can be lowered (make counts-baseline):\n%s", strings.Join(lower, "\n"))
	}
}

func TestGrowthIsFoundBeyondTheMarginAlone(t *testing.T) {
	baseline := Baseline{"relay": {"statements": 10, "wal_bytes": 100_000}}
	for _, test := range []struct {
		now          Stage
		grown, lower int
	}{
		{Stage{"statements": 10.5, "wal_bytes": 104_000}, 0, 0},
		{Stage{"statements": 10.7, "wal_bytes": 100_000}, 1, 0},
		{Stage{"statements": 10, "wal_bytes": 106_000}, 1, 0},
		{Stage{"statements": 9, "wal_bytes": 94_000}, 0, 2},
		{Stage{"statements": 9, "wal_bytes": 100_000, "inserted": 1}, 1, 1}, // without a baseline
	} {
		_, grown, lower := compare(baseline, Baseline{"relay": test.now}, []string{"relay"})
		if len(grown) != test.grown || len(lower) != test.lower {
			t.Errorf("%v: grown %v, lower %v", test.now, grown, lower)
		}
	}
}

// world is one installation whose roles run one after another.
type world struct {
	t        *testing.T
	install  *stack.Install
	database *meter.Database
	broker   *meter.Broker
	idle     meter.Calls // what a service with every role executes without work
}

func measure(t *testing.T) Baseline {
	t.Helper()
	program := filepath.Join(t.TempDir(), "payments")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/payments")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	// What Postgres does by itself and by the clock is kept out of the counts.
	s, err := stack.Start(t.Context(), stack.Config{Program: program, Volatile: true, Settings: append(meter.Settings(),
		"autovacuum=off", "checkpoint_timeout=1h", "max_wal_size=8GB")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, s.Stop()) })
	w := &world{t: t}
	if w.install, err = s.Install(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, w.install.Stop()) })
	if w.database, err = meter.OpenDatabase(t.Context(), s.URL("postgres", w.install.Database)); err != nil {
		t.Skipf("not counted here: %v", err)
	}
	t.Cleanup(func() { check(t, w.database.Close(context.WithoutCancel(t.Context()))) })
	if w.broker, err = meter.OpenBroker(s.Brokers, w.install.Topics()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.broker.Close)
	w.learnIdle()
	found := Baseline{}
	for _, roles := range stages {
		found[roles] = w.stage(roles)
	}
	check(t, w.install.Audit(t.Context()))
	return found
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// stage runs the roles until they have done all that there is to do.
func (w *world) stage(roles string) Stage {
	w.t.Helper()
	ctx := w.t.Context()
	accepts := strings.Contains(roles, "api")
	from := w.reading(nil)
	service, err := w.install.Serve(ctx, map[string]string{"PAYMENTS_ROLES": roles})
	if err != nil {
		w.t.Fatal(err)
	}
	done := payments + warmup
	if accepts {
		w.pay(warmup)
		w.quiet()
		from = w.reading(service)
		w.pay(payments)
		done = payments
	} else {
		w.await(roles+" has done its work", 50*time.Millisecond, func() bool { return w.worked(roles) })
	}
	w.quiet()
	to := w.reading(service)
	log, err := w.database.ReadLog(ctx, from.position, to.position)
	if err != nil {
		w.t.Fatal(err)
	}
	calls := to.calls.Sub(from.calls).Without(w.idle)
	w.explain(roles, calls, done)
	check(w.t, w.install.StopServices())
	n := float64(done)
	return Stage{
		"statements": float64(calls.Sum()) / n, "commits": float64(log.Commits) / n,
		"inserted": float64(log.Inserted) / n, "updated": float64(log.Updated) / n, "deleted": float64(log.Deleted) / n,
		"wal_bytes": float64(log.Records) / n, "allocations": (to.allocations - from.allocations) / n,
	}
}

// pay makes payments one after another, each when the last one's saga has ended.
func (w *world) pay(n int) {
	w.t.Helper()
	client := load.NewClient(w.install)
	defer client.Close()
	for range n {
		if a, err := client.Pay(w.t.Context(), 0, false); err != nil || !a.Accepted() {
			w.t.Fatalf("a payment was answered %d: %v", a.Status, err)
		}
		w.await("its saga ends", time.Millisecond, func() bool {
			unfinished, err := w.database.Unfinished(w.t.Context())
			if err != nil {
				w.t.Fatal(err)
			}
			return unfinished == 0
		})
	}
}

// worked says whether the role has had every event of every payment.
func (w *world) worked(role string) bool {
	w.t.Helper()
	published, err := w.broker.Published(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	made, err := w.database.Events(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if role == "relay" {
		return published >= made
	}
	lag, found, err := w.broker.Lag(w.t.Context(), groups[role])
	if err != nil {
		w.t.Fatal(err)
	}
	return found == 1 && lag == 0
}

// window of time in which statements are counted.
const window = 2 * time.Second

// learnIdle runs every role after a few payments, without which some loops ask nothing, for long
// enough that a service which gets little of a busy machine polls, too.
func (w *world) learnIdle() {
	w.t.Helper()
	if _, err := w.install.Serve(w.t.Context(), nil); err != nil {
		w.t.Fatal(err)
	}
	w.pay(warmup)
	for _, role := range stages[1:] {
		w.await(role+" has done its work", 50*time.Millisecond, func() bool { return w.worked(role) })
	}
	w.windows(2)
	before := w.reading(nil).calls
	w.windows(6)
	w.idle = w.reading(nil).calls.Sub(before)
	check(w.t, w.install.StopServices())
}

func (w *world) windows(left int) {
	w.t.Helper()
	w.await("the windows have passed", window, func() bool { left--; return left <= 0 })
}

// quiet waits until two windows in a row have brought nothing that a service executes for a payment.
func (w *world) quiet() {
	w.t.Helper()
	last, still := w.reading(nil).calls, 0
	w.await("the service is quiet", window, func() bool {
		now := w.reading(nil).calls
		if now.Sub(last).Without(w.idle).Sum() == 0 {
			still++
		} else {
			still = 0
		}
		last = now
		return still >= 2
	})
}

func (w *world) await(what string, every time.Duration, holds func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s later it is not so that %s", within, what)
		}
		<-tick.C
	}
}

type reading struct {
	position    string
	calls       meter.Calls
	allocations float64
}

// reading of the counters; of no service its allocations are 0.
func (w *world) reading(service *stack.Process) (r reading) {
	w.t.Helper()
	var err, calls error
	r.position, err = w.database.Position(w.t.Context())
	r.calls, calls = w.database.Calls(w.t.Context())
	if service != nil {
		var metrics error
		r.allocations, metrics = metric(w.t.Context(), service.Admin+"/metrics", "go_memstats_mallocs_total")
		err = errors.Join(err, metrics)
	}
	if err := errors.Join(err, calls); err != nil {
		w.t.Fatal(err)
	}
	return r
}

func metric(ctx context.Context, url, name string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	answer, err := (&http.Client{Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", url, name)
}

// explain logs the statements of a payment, most frequent first.
func (w *world) explain(roles string, calls meter.Calls, done int) {
	w.t.Helper()
	texts, err := w.database.Queries(w.t.Context(), calls)
	if err != nil {
		w.t.Fatal(err)
	}
	var lines []string
	for id, n := range calls {
		if n*20 >= int64(done) {
			lines = append(lines, fmt.Sprintf("%7.2f  %s", float64(n)/float64(done), texts[id]))
		}
	}
	slices.Sort(lines)
	slices.Reverse(lines)
	w.t.Logf("%s executes for one payment:\n%s", roles, strings.Join(lines, "\n"))
}
