package broker_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"payments/internal/broker"
	"payments/internal/devstack/devtest"
)

// speaking calls written with the number of each request that is sent.
type speaking struct {
	net.Conn
	sent    *atomic.Int64
	written func(n int64)
}

func (s *speaking) Write(b []byte) (int, error) {
	s.written(s.sent.Add(1))
	return s.Conn.Write(b)
}

// The library tells of offsets that nobody waits for any more as of an unknown error
// of the broker.
func TestAnEndedQuestionIsNoErrorOfTheBroker(t *testing.T) {
	brokers, topic := devtest.Brokers(t), devtest.Topic(t)
	for end := int64(1); ; end++ {
		w := &wire{brokers: brokers, conns: map[*wireConn]struct{}{}}
		ctx, cancel := context.WithCancel(t.Context())
		armed, sent := &atomic.Bool{}, &atomic.Int64{}
		c, err := broker.NewClient(w.brokers, broker.Config{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := w.dial(ctx, network, address)
			return &speaking{conn, sent, func(n int64) {
				if armed.Load() && n == end {
					w.silence() // its answer does not come
					cancel()
				}
			}}, err
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.EnsureTopic(t.Context(), topic, 2); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Spans(t.Context(), topic); err != nil {
			t.Fatal(err)
		}
		sent.Store(0)
		armed.Store(true)
		_, err = c.Spans(ctx, topic)
		cancel()
		c.Close()
		if err == nil && sent.Load() < end {
			return // it has no more requests
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ended at request %d: %v", end, err)
		}
	}
}
