package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"payments/internal/broker"
	"payments/internal/devstack/devtest"
	"payments/internal/inbox"
	"payments/internal/outbox"
)

func TestMain(m *testing.M) { os.Exit(devtest.Run(m)) }

// deadline of a condition that a test waits for; takeover after a crash takes
// seconds by design.
const deadline = 40 * time.Second

// wire is the network between a client and the brokers.
type wire struct {
	brokers []string
	prefix  string

	mu     sync.Mutex
	conns  map[*wireConn]struct{}
	cut    bool
	silent chan struct{} // while not nil, nothing arrives
	held   chan struct{} // while not nil, no produce request is sent
	lose   bool          // the next answer to a produce request, with its connection
}

type wireConn struct {
	net.Conn
	of     *wire
	closed chan struct{}
	once   sync.Once

	producing bool
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	cut := w.cut
	w.mu.Unlock()
	if cut {
		return nil, errors.New("the wire is cut")
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := &wireConn{Conn: c, of: w, closed: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[conn] = struct{}{}
	return conn, nil
}

// Write looks for the beginning of a produce request: a size and the key 0.
func (c *wireConn) Write(b []byte) (int, error) {
	c.of.mu.Lock()
	c.producing = len(b) > 6 && b[4] == 0 && b[5] == 0
	held := c.of.held
	producing := c.producing
	c.of.mu.Unlock()
	if producing && held != nil {
		<-held
	}
	return c.Conn.Write(b)
}

func (c *wireConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.of.mu.Lock()
	silent := c.of.silent
	lose := c.of.lose && c.producing && err == nil
	c.of.lose = c.of.lose && !lose
	c.of.mu.Unlock()
	if lose {
		_ = c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	if silent != nil {
		select {
		case <-silent:
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	return n, err
}

func (c *wireConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// fail breaks every connection and lets none be made; mend lets them.
func (w *wire) fail() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for c := range w.conns {
		_ = c.Close()
	}
	clear(w.conns)
}

func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = false
}

// silence lets connections stand on which nothing is answered any more.
func (w *wire) silence() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = make(chan struct{})
}

// hold keeps produce requests on their way until release.
func (w *wire) hold() (release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	held := make(chan struct{})
	w.held = held
	return func() { close(held) }
}

// loseAnswer lets the next produce request arrive, and not the answer to it.
func (w *wire) loseAnswer() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose = true
}

// loses tells whether that answer is yet to come.
func (w *wire) loses() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lose
}

// speak ends a silence.
func (w *wire) speak() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.silent)
	w.silent = nil
}

// leaks looks for goroutines that outlive what the test starts after it.
func leaks(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

func client(t *testing.T) (*broker.Client, *wire) {
	t.Helper()
	leaks(t)
	return another(t, devtest.Brokers(t))
}

func another(t *testing.T, brokers []string) (*broker.Client, *wire) {
	t.Helper()
	return installation(t, brokers, "")
}

// installation is a client whose topics, groups and transactional ids have the prefix.
func installation(t *testing.T, brokers []string, prefix string) (*broker.Client, *wire) {
	t.Helper()
	w := &wire{brokers: brokers, prefix: prefix, conns: map[*wireConn]struct{}{}}
	c, err := broker.NewClient(brokers, broker.Config{Dial: w.dial, Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, w
}

func topic(t *testing.T, c *broker.Client, partitions int) string {
	t.Helper()
	name := devtest.Topic(t)
	if err := c.EnsureTopic(t.Context(), name, partitions); err != nil {
		t.Fatal(err)
	}
	return name
}

func message(topic, key string, n int) outbox.Message {
	return outbox.Message{
		MerchantID: "m", ID: fmt.Sprintf("%s-%d", key, n), Topic: topic, Key: key, Sequence: int64(n),
		Headers: []outbox.Header{{Key: "ce_id", Value: fmt.Sprintf("%s-%d", key, n)}, {Key: "empty", Value: ""}},
		Payload: fmt.Appendf(nil, "%s %d", key, n),
	}
}

func publish(t *testing.T, p outbox.Publisher, msgs ...outbox.Message) {
	t.Helper()
	if err := p.Publish(t.Context(), msgs); err != nil {
		t.Fatal(err)
	}
}

// member is a consumer that runs until stop, the sink of what it is given, and
// what that was. gate and claim, when set, decide first.
type member struct {
	t      *testing.T
	reg    *prometheus.Registry
	gate   func(ctx context.Context, batch []inbox.Message) error
	claim  func(generation int, current func(int64) error) (inbox.Offset, error)
	group  string
	cancel context.CancelFunc
	done   chan error

	mu         sync.Mutex
	got        []inbox.Message
	tries      int
	heartbeats int
}

func (m *member) start(c *broker.Client, topic, group string, batch int) *member {
	m.t.Helper()
	m.group = group
	m.reg, m.done = prometheus.NewRegistry(), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.WithoutCancel(m.t.Context()))
	m.cancel = cancel
	go func() {
		m.done <- c.Consume(ctx, broker.ConsumerConfig{
			Group: group, Topic: topic, MaxBatch: batch, Log: slog.New(slog.DiscardHandler), Registerer: m.reg,
			Heartbeat: func() { m.mu.Lock(); defer m.mu.Unlock(); m.heartbeats++ },
		}, m)
	}()
	m.t.Cleanup(func() { m.stop() })
	return m
}

// stands is where the members of a group have come to, by group and partition.
var stands = struct { //nolint:gochecknoglobals // it is the members' database
	mu sync.Mutex
	at map[string]inbox.Offset
}{at: map[string]inbox.Offset{}}

func (m *member) place(partition int) string { return fmt.Sprintf("%s/%d", m.group, partition) }

func (m *member) Claim(_ context.Context, _ string, partition, generation int, current func(int64) error) (inbox.Offset, error) {
	if m.claim != nil {
		return m.claim(generation, current)
	}
	stands.mu.Lock()
	defer stands.mu.Unlock()
	if at, ok := stands.at[m.place(partition)]; ok {
		return at, nil
	}
	return inbox.Offset{Next: -1}, nil
}

// took notes that all of the batch was.
func (m *member) took(batch []inbox.Message) {
	stands.mu.Lock()
	defer stands.mu.Unlock()
	last := batch[len(batch)-1]
	stands.at[m.place(last.Partition)] = inbox.Offset{Next: last.Offset + 1, LastID: last.Headers["ce_id"]}
}

func (m *member) ApplyAll(ctx context.Context, generation int, batches [][]inbox.Message) (taken []inbox.Taken) {
	for _, batch := range batches {
		n, err := m.Apply(ctx, generation, batch)
		taken = append(taken, inbox.Taken{N: n, Err: err})
	}
	return taken
}

func (m *member) Apply(ctx context.Context, _ int, batch []inbox.Message) (int, error) {
	m.mu.Lock()
	m.tries++
	m.mu.Unlock()
	if m.gate != nil {
		if err := m.gate(ctx, batch); err != nil {
			return 0, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got = append(m.got, batch...)
	m.took(batch)
	return len(batch), nil
}

func (m *member) stop() {
	m.t.Helper()
	m.cancel()
	if err, ok := <-m.done; ok && err != nil {
		m.t.Errorf("Consume = %v", err)
	}
	select {
	case <-m.done:
	default:
		close(m.done)
	}
}

func (m *member) ids() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := []string{}
	for _, g := range m.got {
		ids = append(ids, g.Headers["ce_id"])
	}
	return ids
}

func (m *member) count(of *int) func() int {
	return func() int { m.mu.Lock(); defer m.mu.Unlock(); return *of }
}

func (m *member) has(n int) {
	m.t.Helper()
	await(m.t, fmt.Sprintf("%d messages", n), func() bool { return len(m.ids()) >= n })
}

// inSequence fails unless the first n messages of each key came in sequence.
func inSequence(t *testing.T, got []inbox.Message, n int) {
	t.Helper()
	last := map[string]int{}
	for _, m := range got {
		var key string
		var sequence int
		if _, err := fmt.Sscanf(string(m.Value), "%s %d", &key, &sequence); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if sequence > last[key]+1 {
			t.Fatalf("key %s: %d came after %d", key, sequence, last[key])
		}
		last[key] = max(last[key], sequence)
	}
	for key, l := range last {
		if l != n {
			t.Errorf("key %s ended at %d, want %d", key, l, n)
		}
	}
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func lag(t *testing.T, reg *prometheus.Registry) (sum float64, partitions int) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "payments_inbox_lag_messages" {
			for _, m := range f.GetMetric() {
				sum += m.GetGauge().GetValue()
				partitions++
			}
		}
	}
	return sum, partitions
}
