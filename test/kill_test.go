package test

import (
	"testing"
	"time"
)

// longestLife of a process that is to be killed, counted from its start, so that
// some are killed before they are ready and some in the middle of everything.
const longestLife = 1500 * time.Millisecond

func TestTheServiceIsKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parts{})
	rng := random(t)
	s := w.serve(nil)
	l := w.load(rng, s)
	for range kills(t) {
		wait(t, time.Duration(rng.Int64N(int64(longestLife))))
		s.kill()
		s.start()
	}
	s.awaitReady()
	l.verify()
}

// The survivor has every role too: it takes over what the dead one had in hand,
// and clients turn to it.
func TestOneOfTwoServicesIsKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parts{})
	rng := random(t)
	both := []*service{w.serve(nil), w.serve(nil)}
	l := w.load(rng, both...)
	for range kills(t) {
		wait(t, time.Duration(rng.Int64N(int64(longestLife))))
		s := both[rng.IntN(2)]
		s.kill()
		s.start()
	}
	for _, s := range both {
		s.awaitReady()
	}
	l.verify()
}

// The bank's side crashes with requests in its hands, and the service sometimes with it.
func TestTheSimulatorIsKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parts{})
	rng := random(t)
	s := w.serve(nil)
	l := w.load(rng, s)
	for range kills(t) {
		wait(t, time.Duration(rng.Int64N(int64(longestLife))))
		if rng.IntN(3) == 0 {
			s.kill()
			s.start()
		}
		w.simulator.kill()
		w.simulate()
	}
	s.awaitReady()
	l.verify()
}

// wait is for a random instant or the length of an outage; what is to be true
// after it is awaited by itself.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}
