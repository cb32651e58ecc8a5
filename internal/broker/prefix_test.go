package broker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

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

	publish(t, p, message("events", "k", 3))
	second := (&member{t: t}).start(plain, prefix+"events", prefix+"group", 10)
	second.has(1)
	second.stop()
	if got := second.ids(); !slices.Equal(got, []string{"k-3"}) {
		t.Errorf("under the full names came %v, want only what the group had not committed", got)
	}
}

func TestAPrefixThatKafkaWouldRefuse(t *testing.T) {
	for _, prefix := range []string{"a/b", "a b", "ü", "a\n", strings.Repeat("p", 101)} {
		if _, err := broker.NewClient([]string{"h:1"}, broker.Config{Prefix: prefix}); err == nil || !strings.Contains(fmt.Sprint(err), "prefix") {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}
}
