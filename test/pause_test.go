package test

import (
	"bufio"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// metric sums a metric over its labels, as the service's admin address tells it.
func (s *service) metric(name string) (sum float64) {
	s.w.t.Helper()
	a, err := s.w.get(s.admin+"/metrics", "")
	if err != nil {
		s.w.t.Fatal(err)
	}
	for scan := bufio.NewScanner(strings.NewReader(string(a.body))); scan.Scan(); {
		series, value, _ := strings.Cut(scan.Text(), " ")
		if family, _, _ := strings.Cut(series, "{"); family == name {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				s.w.t.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

// fault is the body of the simulator's POST /v1/faults.
func (w *world) fault(body string) {
	w.t.Helper()
	w.faults(http.MethodPost, body, http.StatusCreated)
}

func (w *world) heal() {
	w.t.Helper()
	w.faults(http.MethodDelete, "", http.StatusNoContent)
}

func (w *world) faults(method, body string, want int) {
	w.t.Helper()
	a, err := w.send(w.t.Context(), method, w.vars["PAYMENTS_PROVIDER_URL"]+"/v1/faults", "", body, nil)
	if err != nil || a.status != want {
		w.t.Fatalf("%s a fault: %d %s %v", method, a.status, a.body, err)
	}
}

// A worker that is stopped past its lease and goes on writes nothing: what it had
// in its hands was finished, once, by another.
func TestAStoppedWorkerIsFenced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parts{})
	// Every call takes a while, so that there is always one under way.
	w.fault(`{"kind": "slow", "operation": "*", "latency_ms": 600, "rate": 0.3}`)
	other := w.serve(nil) // the first, which the bank notifies: it would else ask one that serves no API, again and again
	sleeper := w.serve(map[string]string{"PAYMENTS_ROLES": "saga"})
	l := w.load(random(t), other)
	owner := "%:" + strconv.Itoa(sleeper.command.Process.Pid) + ":%"
	held := func() int64 {
		return w.count(`SELECT count(*) FROM sagas WHERE owner LIKE $1 AND intent AND NOT resolving`, owner)
	}
	await(t, settleWithin, func() string {
		if held() < 5 {
			return "the worker has no calls under way"
		}
		return ""
	})
	if err := sleeper.command.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sleeper.command.Process.Signal(syscall.SIGCONT) })
	before := held()
	await(t, settleWithin, func() string {
		if n := w.count(`SELECT count(*) FROM sagas WHERE owner LIKE $1`, owner); n > 0 {
			return strconv.FormatInt(n, 10) + " sagas are still the stopped worker's"
		}
		return ""
	})
	if err := sleeper.command.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await(t, settleWithin, func() string {
		if sleeper.metric("payments_saga_fenced_writes_total") == 0 {
			return "no write of the stopped worker was refused"
		}
		return ""
	})
	w.heal()
	l.verify()
	t.Logf("%d calls were under way at the stop, %v writes were refused", before, sleeper.metric("payments_saga_fenced_writes_total"))
}
