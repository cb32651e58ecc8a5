package broker_test

import (
	"strings"
	"testing"
	"time"

	"payments/internal/broker"
	"payments/internal/devstack/devtest"
)

func TestCheckTopicNamesWhatIsWrong(t *testing.T) {
	_, w := client(t)
	made := func(c broker.Config) string {
		t.Helper()
		c.Dial = w.dial
		maker, err := broker.NewClient(w.brokers, c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(maker.Close)
		name := devtest.Topic(t)
		if err := maker.EnsureTopic(t.Context(), name, 2); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for what, test := range map[string]struct {
		made, asked broker.Config
		warning     string
		refusal     string
	}{
		"as asked": {
			broker.Config{MinInSync: 1, Retention: 48 * time.Hour}, broker.Config{MinInSync: 1, Retention: 48 * time.Hour}, "", "",
		},
		"more replicas asked for": {broker.Config{}, broker.Config{ReplicationFactor: 3}, "has 1 replicas and 3 are configured", ""},
		"kept for too short": {
			broker.Config{Retention: time.Hour}, broker.Config{Retention: 2 * time.Hour}, "keeps events for 1h0m0s and 2h0m0s is configured", "",
		},
		"fewer in sync than asked": {
			broker.Config{MinInSync: 1}, broker.Config{MinInSync: 2}, "has min.insync.replicas=1 and 2 is configured", "",
		},
		"nothing is ever acknowledged": {broker.Config{MinInSync: 2}, broker.Config{}, "", "and so acknowledges nothing"},
	} {
		name := made(test.made)
		test.asked.Dial = w.dial
		c, err := broker.NewClient(w.brokers, test.asked)
		if err != nil {
			t.Fatal(err)
		}
		warnings, err := c.CheckTopic(t.Context(), name)
		c.Close()
		if told := strings.Join(warnings, ", "); (test.warning == "") != (told == "") || !strings.Contains(told, test.warning) {
			t.Errorf("%s: warned of %q, want %q", what, told, test.warning)
		}
		if test.refusal == "" && err != nil || test.refusal != "" && (err == nil || !strings.Contains(err.Error(), test.refusal)) {
			t.Errorf("%s: CheckTopic = %v, want %q", what, err, test.refusal)
		}
	}
}

func TestCheckTopicOfNone(t *testing.T) {
	c, _ := client(t)
	if _, err := c.CheckTopic(t.Context(), "nowhere"); err == nil {
		t.Error("CheckTopic = nil for a topic that is not there")
	}
}
