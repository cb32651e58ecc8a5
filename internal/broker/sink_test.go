package broker_test

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/broker"
	"payments/internal/inbox"
)

func TestAConsumerGoesOnWhereItsSinkStands(t *testing.T) {
	c, _ := client(t)
	name := topic(t, c, 1)
	for n := range 4 {
		publish(t, broker.NewPublisher(c), message(name, "a", n+1))
	}
	m := &member{t: t, claim: func(int, func(int64) error) (inbox.Offset, error) {
		return inbox.Offset{Next: 3, LastID: "a-3"}, nil
	}}
	m.start(c, name, name, 0)
	m.has(1)
	m.stop()
	if got := m.ids(); !slices.Equal(got, []string{"a-4"}) {
		t.Errorf("got %v, want what is not in the sink yet", got)
	}
	// Its database was restored from a backup: the group has committed more.
	publish(t, broker.NewPublisher(c), message(name, "a", 5))
	for stands, want := range map[inbox.Offset][]string{
		{Next: 3, LastID: "a-3"}: {"a-4", "a-5"},
		{Next: -1}:               {"a-1", "a-2", "a-3", "a-4", "a-5"},
	} {
		behind := &member{t: t, claim: func(int, func(int64) error) (inbox.Offset, error) { return stands, nil }}
		behind.start(c, name, name, 0)
		behind.has(len(want))
		behind.stop()
		if got := behind.ids(); !slices.Equal(got, want) {
			t.Errorf("got %v, want what is not in the sink: %v", got, want)
		}
	}
}

// The naive consumer trusts the offset that it stored. A topic that was deleted and
// made anew has other messages below it, and loses them.
func TestAnotherLogUnderTheTopicsNameIsReadFromItsBeginning(t *testing.T) {
	for what, stands := range map[string]inbox.Offset{
		"another message in its place": {Next: 2, LastID: "z-9"},
		"longer than the log":          {Next: 9, LastID: "z-9"},
	} {
		t.Run(what, func(t *testing.T) {
			c, _ := client(t)
			name := topic(t, c, 1)
			for n := range 3 {
				publish(t, broker.NewPublisher(c), message(name, "a", n+1))
			}
			m := &member{t: t, claim: func(int, func(int64) error) (inbox.Offset, error) { return stands, nil }}
			m.start(c, name, name, 0)
			m.has(3)
			m.stop()
			if got := m.ids(); !slices.Equal(got, []string{"a-1", "a-2", "a-3"}) {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestAFencedConsumerJoinsTheGroupAnew(t *testing.T) {
	c, _ := client(t)
	name := topic(t, c, 1)
	publish(t, broker.NewPublisher(c), message(name, "a", 1))
	var generations []int
	var confirmed error
	m := &member{t: t}
	m.claim = func(generation int, current func(int64) error) (inbox.Offset, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		generations = append(generations, generation)
		if len(generations) == 1 {
			return inbox.Offset{Next: -1}, inbox.ErrFenced
		}
		confirmed = current(0)
		return inbox.Offset{Next: -1}, nil
	}
	var once atomic.Bool
	m.gate = func(context.Context, []inbox.Message) error {
		if once.CompareAndSwap(false, true) {
			return inbox.ErrFenced
		}
		return nil
	}
	m.start(c, name, name, 0)
	m.has(1)
	m.stop()
	if len(generations) < 3 || !slices.IsSorted(generations) || generations[0] == generations[len(generations)-1] {
		t.Errorf("claimed for the generations %v, want a later one after each refusal", generations)
	}
	if confirmed != nil {
		t.Errorf("the coordinator denies the generation that stands: %v", confirmed)
	}
}

// The naive consumer takes its generation's word for it. A member that was stopped
// while the group went on still believes in its own; the coordinator does not.
func TestTheCoordinatorDeniesAGenerationThatIsOver(t *testing.T) {
	c, _ := client(t)
	name := topic(t, c, 2)
	stale := make(chan func(int64) error, 1)
	m := &member{t: t, claim: func(_ int, current func(int64) error) (inbox.Offset, error) {
		select {
		case stale <- current:
		default:
		}
		return inbox.Offset{Next: -1}, nil
	}}
	m.start(c, name, name, 0)
	current := <-stale
	if err := current(0); err != nil {
		t.Fatalf("the only member is denied: %v", err)
	}
	other := (&member{t: t}).start(c, name, name, 0)
	await(t, "a share for each", func() bool {
		_, a := lag(t, m.reg)
		_, b := lag(t, other.reg)
		return a == 1 && b == 1
	})
	if err := current(0); err == nil {
		t.Error("a generation that is over was confirmed")
	}
}

func TestWhatWasTakenIsCommittedAndTheRestComesAgain(t *testing.T) {
	c, _ := client(t)
	name := topic(t, c, 1)
	for n := range 4 {
		publish(t, broker.NewPublisher(c), message(name, "a", n+1))
	}
	first := &partial{member: &member{t: t, group: name}, take: 3}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- c.Consume(ctx, broker.ConsumerConfig{
			Group: name, Topic: name, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), Heartbeat: func() {},
		}, first)
	}()
	await(t, "three messages, and tries of the fourth", func() bool { return first.count(&first.tries)() >= 3 })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := first.ids(); !slices.Equal(got, []string{"a-1", "a-2", "a-3"}) {
		t.Errorf("got %v", got)
	}
	next := (&member{t: t}).start(c, name, name, 0)
	next.has(1)
	next.stop()
	if got := next.ids(); !slices.Equal(got, []string{"a-4"}) {
		t.Errorf("after the restart %v", got)
	}
}

// partial takes so many messages in, and then none.
type partial struct {
	*member
	take int
}

func (p *partial) ApplyAll(_ context.Context, _ int, batches [][]inbox.Message) (taken []inbox.Taken) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tries++
	for _, batch := range batches {
		n := min(p.take-len(p.got), len(batch))
		if n > 0 {
			p.got = append(p.got, batch[:n]...)
			p.took(batch[:n])
		}
		t := inbox.Taken{N: n}
		if n < len(batch) {
			t.Err = errAway
		}
		taken = append(taken, t)
	}
	return taken
}

func TestWaitingIsWhatTheLogHasBehindTheOffsets(t *testing.T) {
	c, _ := client(t)
	name := topic(t, c, 3)
	publish(t, broker.NewPublisher(c), message(name, "a", 1), message(name, "b", 1), message(name, "c", 1), message(name, "d", 1))
	m := (&member{t: t}).start(c, name, name, 0)
	m.has(4)
	m.stop()
	ends := map[int]int64{}
	firsts := map[int]string{}
	for _, g := range m.got {
		ends[g.Partition] = g.Offset + 1
		if g.Offset == 0 {
			firsts[g.Partition] = g.Headers["ce_id"]
		}
	}
	waiting := func(next map[int]int64) map[int]string {
		t.Helper()
		all, err := c.Waiting(t.Context(), name, next)
		if err != nil {
			t.Fatal(err)
		}
		got := map[int]string{}
		for _, w := range all {
			got[w.Partition] = w.Headers["ce_id"]
		}
		return got
	}
	if got := waiting(ends); len(got) != 0 {
		t.Errorf("waiting behind the end: %v", got)
	}
	if got := waiting(nil); !maps.Equal(got, firsts) {
		t.Errorf("without offsets %v, want %v", got, firsts)
	}
	publish(t, broker.NewPublisher(c), message(name, "a", 2))
	if got := waiting(ends); !slices.Equal(slices.Collect(maps.Values(got)), []string{"a-2"}) {
		t.Errorf("waiting: %v, want the one that was published since", got)
	}
	for i := range ends { // another log under the same name
		ends[i] = 1000
	}
	if got := waiting(ends); !maps.Equal(got, firsts) {
		t.Errorf("with offsets that the log does not have %v, want %v", got, firsts)
	}
}
