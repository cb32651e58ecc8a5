package broker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"

	"payments/internal/broker"
	"payments/internal/devstack/devtest"
)

// A client without the prefix sees, under the full names, what one with it did:
// the topic, its messages and how far the group has come.
func TestAPrefixIsBeforeEveryTopicAndGroup(t *testing.T) {
	plain, w := client(t)
	prefix := devtest.Topic(t) + "_A-1."
	prefixed, err := broker.NewClient(w.brokers, broker.Config{Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(prefixed.Close)
	if err := prefixed.EnsureTopic(t.Context(), "events", 1); err != nil {
		t.Fatal(err)
	}
	p := broker.NewPublisher(prefixed)
	first := (&member{t: t}).start(prefixed, "events", "group", 10)
	publish(t, p, message("events", "k", 1), message("events", "k", 2))
	first.has(2)
	first.stop()
	if got := first.got[0].Topic; got != "events" {
		t.Errorf("a message says that it is of topic %q", got)
	}

	raw := &kafka.Client{Addr: kafka.TCP(w.brokers...), Transport: &kafka.Transport{Context: t.Context()}}
	defer raw.Transport.(*kafka.Transport).CloseIdleConnections()
	committed, err := raw.OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{GroupID: prefix + "group", Topics: map[string][]int{prefix + "events": {0}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := committed.Topics[prefix+"events"]; len(got) != 1 || got[0].CommittedOffset != 2 {
		t.Errorf("under the full names %+v was committed, want 2", got)
	}
	second := (&member{t: t}).start(plain, prefix+"events", prefix+"group", 10)
	second.has(2)
}

func TestAPrefixThatKafkaWouldRefuse(t *testing.T) {
	for _, prefix := range []string{"a/b", "a b", "ü", "a\n", strings.Repeat("p", 101)} {
		if _, err := broker.NewClient([]string{"h:1"}, broker.Config{Prefix: prefix}); err == nil || !strings.Contains(fmt.Sprint(err), "prefix") {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}
}
