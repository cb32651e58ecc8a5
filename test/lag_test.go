package test

import (
	"bufio"
	"fmt"
	"maps"
	"strings"
	"syscall"
	"testing"

	"payments/internal/devstack/devtest"
)

// The broker is away; half way through, the one process is restarted (a deployment, somebody
// who hopes that it helps). Payments go on. The metrics by which a person is called say how
// old the oldest event is, each loop has a last turn, and the process takes requests.
func TestTheLagIsKnownAfterARestartWhileTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	broker := devtest.RestartableBroker(t)
	w := newWorld(t, parts{brokers: []string{broker.Addr()}})
	s := w.serve(nil)
	w.paid(s, "before", order("A-before", "pm_card_visa"))
	w.settled()
	broker.Stop()
	// w.paid would wait for the read model.
	if a, err := w.post(s, "away", order("A-away", "pm_card_visa"), nil); err != nil || a.status != 202 {
		t.Fatal(a.status, err)
	}
	// A minute and a half goes by.
	if tag, err := w.db.Exec(t.Context(), `UPDATE outbox SET created_at = created_at - interval '90 s'`); err != nil || tag.RowsAffected() == 0 {
		t.Fatal(tag, err)
	}
	lag := func() string {
		outbox, inbox := s.metric("payments_outbox_oldest_unpublished_seconds"), s.metric("payments_inbox_oldest_unapplied_seconds")
		if outbox < 60 || inbox < 60 {
			return fmt.Sprintf("the oldest unpublished event is told to be %v s old, the oldest unapplied of both consumers %v s: PaymentsOutboxStuck and PaymentsConsumerBehind (> 60) do not fire", outbox, inbox)
		}
		return ""
	}
	await(t, settleWithin, lag)
	s.end(syscall.SIGTERM)
	s.start()
	s.awaitReady()
	await(t, settleWithin, lag)
	metrics, err := w.get(s.admin+"/metrics", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, loop := range []string{"topic", "relay", "inbox_lag", "webhooks_lag", "projector", "webhooks_fanout", "saga", "outbox_keeper"} {
		if !strings.Contains(string(metrics.body), `payments_loop_last_turn_timestamp_seconds{loop="`+loop+`"}`) {
			t.Errorf("the loop %s has no last turn", loop)
		}
	}
	// The topic's loop is dead by now or soon, and is named. The API does not depend on it.
	await(t, settleWithin, func() string {
		a, err := w.get(s.admin+"/readyz", "")
		switch {
		case err != nil:
			return err.Error()
		case a.status != 200:
			t.Fatalf("readyz: %d %s", a.status, a.body)
		case !strings.Contains(string(a.body), "The loop projector has not turned"):
			return "no dead loop is named: " + string(a.body)
		}
		return ""
	})
	broker.Start()
	await(t, settleWithin, func() string {
		if a, err := w.get(s.admin+"/readyz", ""); err != nil || string(a.body) != `{"status":"ready"}` {
			return fmt.Sprintf("%s %v", a.body, err)
		}
		return ""
	})
	w.audited()
}

// zeroAtTheStart are gauges of what a process itself does, which is nothing at its start.
var zeroAtTheStart = map[string]bool{
	"payments_relay_shards_owned": true, "payments_relay_shards_failing": true, "payments_saga_circuit_open": true,
	"payments_provider_account_known": true, "payments_provider_references_shared": true, "payments_http_held_requests": true,
	"payments_saga_circuit_state": true, "payments_postgres_pool_connections": true,
}

// Nothing can be asked from the start on, and so nothing was measured. 0 would say that all is well.
func TestAGaugeThatWasNotMeasuredIsAbsent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parts{})
	vars := maps.Clone(w.vars)
	vars["PAYMENTS_ADDR"], vars["PAYMENTS_ADMIN_ADDR"] = w.address(), w.address()
	vars["PAYMENTS_KAFKA_BROKERS"], vars["PAYMENTS_PROVIDER_URL"] = w.address(), "http://"+w.address()
	vars["PAYMENTS_DATABASE_URL"] = "postgres://payments@" + w.address() + "/payments"
	w.elsewhere.Store(vars["PAYMENTS_ADMIN_ADDR"], true)
	s := &service{w: w, name: "serve-alone", vars: vars, admin: "http://" + vars["PAYMENTS_ADMIN_ADDR"]}
	s.start()
	await(t, readyWithin, func() string { return w.answers(s.admin + "/healthz") })
	// Each loop has tried.
	await(t, settleWithin, func() string {
		for _, loop := range []string{"relay", "inbox_lag", "webhooks_lag", "outbox_keeper", "saga_metrics", "webhooks_metrics", "reports", "reconcile", "unfinished"} {
			if s.series(`payments_loop_errors_total{loop="`+loop+`"}`) == "0" {
				return "the loop " + loop + " has not failed"
			}
		}
		return ""
	})
	a, err := w.get(s.admin+"/metrics", "")
	if err != nil {
		t.Fatal(err)
	}
	gauges := map[string]bool{}
	for scan := bufio.NewScanner(strings.NewReader(string(a.body))); scan.Scan(); {
		if name, kind, ok := strings.Cut(strings.TrimPrefix(scan.Text(), "# TYPE "), " "); ok && kind == "gauge" {
			gauges[name] = true
		}
		series, value, _ := strings.Cut(scan.Text(), " ")
		name, _, _ := strings.Cut(series, "{")
		if gauges[name] && value == "0" && strings.HasPrefix(name, "payments_") && !zeroAtTheStart[name] {
			t.Errorf("%s: nobody has measured it", scan.Text())
		}
	}
	if !gauges["payments_relay_shards"] {
		t.Errorf("not what was expected:\n%s", a.body)
	}
}

// series is a series' value as it stands in the metrics, and empty if there is none.
func (s *service) series(name string) string {
	s.w.t.Helper()
	a, err := s.w.get(s.admin+"/metrics", "")
	if err != nil {
		s.w.t.Fatal(err)
	}
	for line := range strings.Lines(string(a.body)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
