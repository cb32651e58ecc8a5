package saga

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/sony/gobreaker/v2"
)

// A provider that is back and of whose answers some are unknown, as is usual, is
// called again after its first answer; until then one call at a time asks for it.
func TestTheCircuitClosesWithTheFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []bool
		c := newCircuit(time.Second, func(_, to gobreaker.State) { changes = append(changes, to == gobreaker.StateOpen) })
		call := func() func(answered bool) {
			t.Helper()
			done, ok := c.allow()
			if !ok {
				t.Fatal("no call is let through")
			}
			return done
		}
		call()(true)
		for range tripAfter {
			if c.open() {
				t.Fatal("it opened too soon")
			}
			call()(false)
		}
		if _, ok := c.allow(); ok || !c.open() {
			t.Fatal("it did not open")
		}
		for range 3 { // the provider stays away
			<-time.After(time.Second + 1)
			if c.open() {
				t.Fatal("nothing asks for the provider after the pause")
			}
			probe := call()
			if _, ok := c.allow(); ok || !c.open() {
				t.Error("a second call goes out beside the one that asks")
			}
			probe(false)
			if !c.open() {
				t.Error("it closed without an answer")
			}
		}
		<-time.After(time.Second + 1)
		call()(true) // an answer, if no consent
		if c.open() {
			t.Error("it stays open after an answer")
		}
		for range tripAfter - 1 {
			call()(false)
		}
		call()(true)
		if c.open() {
			t.Error("it opens though there are answers in between")
		}
		if want := []bool{true, false, true, false, true, false, true, false, false}; len(changes) != len(want) {
			t.Errorf("it told of %v", changes)
		}
	})
}

// An outage is in the log and in the gauges from its first moment to its last.
func TestAnOutageIsToldWhenItBeginsAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		m := newMetrics(prometheus.NewRegistry())
		watch := newCallsWatch(m, slog.New(slog.NewTextHandler(&b, nil)), 8, time.Now)
		l := newLimit(8, watch.allowedChanged)
		c := newCircuit(time.Second, func(from, to gobreaker.State) {
			watch.circuitChanged(from, to)
			if to == gobreaker.StateOpen {
				l.restart()
			}
		})
		told := func(about, state string, open, allowed float64, lines ...string) {
			t.Helper()
			for _, name := range circuitStates {
				if got := testutil.ToFloat64(m.circuit.WithLabelValues(name)); got != set(name == state) {
					t.Errorf("%s: the gauge of %s is %v", about, name, got)
				}
			}
			if got := testutil.ToFloat64(m.open); got != open {
				t.Errorf("%s: open is %v", about, got)
			}
			if got := testutil.ToFloat64(m.allowed); got != allowed {
				t.Errorf("%s: %v calls are allowed", about, got)
			}
			log := b.String()
			b.Reset()
			if strings.Count(log, "\n") != len(lines) {
				t.Errorf("%s: the log has %s", about, log)
			}
			for _, line := range lines {
				if !strings.Contains(log, line) {
					t.Errorf("%s: the log does not have %q: %s", about, line, log)
				}
			}
		}
		told("at the start", "closed", 0, 8)
		for range tripAfter {
			done, _ := c.allow()
			done(false)
		}
		told("after so many unknown outcomes", "open", 1, 1, "level=WARN msg=\"circuit opened\"", "level=WARN msg=\"fewer calls to the provider\" before=8 allowed=1")
		<-time.After(time.Second + 1)
		probe, _ := c.allow()
		told("while one call asks", "half_open", 1, 1)
		probe(false)
		told("after it had no answer", "open", 1, 1)
		<-time.After(time.Second + 1)
		probe, _ = c.allow()
		probe(true)
		told("after an answer", "closed", 0, 1, "level=INFO msg=\"circuit closed\" open_for=2")
		for range 3 * leastWindow { // each window doubles it
			p, _ := l.acquire(t.Context(), time.Second)
			l.release(p, true)
		}
		told("after windows of answers", "closed", 0, 2)
	})
}
