package devtest

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// host is what a member of a group connects by, until it is killed.
type host struct {
	mu     sync.Mutex
	killed bool
	conns  []net.Conn
}

func (h *host) dial(ctx context.Context, network, address string) (net.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.killed {
		return nil, errors.New("killed")
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	h.conns = append(h.conns, c)
	return c, err
}

func (h *host) kill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.killed = true
	for _, c := range h.conns {
		if c != nil {
			c.Close()
		}
	}
}

func (h *host) join(t *testing.T, addr, topic string) *kafka.ConsumerGroup {
	t.Helper()
	g, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: topic, Topics: []string{topic}, Brokers: []string{addr}, Dialer: &kafka.Dialer{DialFunc: h.dial, Timeout: 5 * time.Second},
		SessionTimeout: 2 * time.Second, RebalanceTimeout: 2 * time.Second, HeartbeatInterval: 200 * time.Millisecond,
		JoinGroupBackoff: 100 * time.Millisecond, StartOffset: kafka.FirstOffset,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// A process that is killed while it waits to be let into a group is forgotten
// like any other, and its partitions are given to those that live. A broker that
// forgets only some does so when the dead one happens to lead, so there are several.
func TestAMemberKilledWhileItJoinsIsForgotten(t *testing.T) {
	addr := Brokers(t)[0]
	for n := range 4 {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			killedWhileItJoins(t, addr, Topic(t))
		})
	}
}

func killedWhileItJoins(t *testing.T, addr, topic string) {
	t.Helper()
	produce(t, addr, topic, "1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	transport := &kafka.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	client := &kafka.Client{Addr: kafka.TCP(addr), Transport: transport}

	first, second, third := &host{}, &host{}, &host{}
	generation, err := first.join(t, addr, topic).Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	all := len(generation.Assignments[topic])
	first.kill()
	second.join(t, addr, topic)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for joining := false; !joining; {
		res, err := client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{topic}})
		if err != nil {
			t.Fatal(err)
		}
		joining = len(res.Groups) == 1 && res.Groups[0].GroupState == "PreparingRebalance"
		<-tick.C
	}
	second.kill()

	g := third.join(t, addr, topic)
	for have := 0; have < all; {
		generation, err := g.Next(ctx)
		if ctx.Err() != nil {
			t.Fatalf("the third process has %d of %d partitions: a dead member is still in the group", have, all)
		}
		if err != nil {
			continue
		}
		have = len(generation.Assignments[topic])
	}
}
