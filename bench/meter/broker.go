package meter

import (
	"context"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Broker counts the events of one installation, whose topics and groups have a prefix.
type Broker struct {
	admin  *kadm.Client
	prefix string
}

// OpenBroker connects at the first question.
func OpenBroker(brokers, prefix string) (*Broker, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...))
	if err != nil {
		return nil, err
	}
	return &Broker{kadm.NewClient(client), prefix}, nil
}

// Close the connections.
func (b *Broker) Close() { b.admin.Close() }

// Published is how many events the topics have.
func (b *Broker) Published(ctx context.Context) (sum int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	topics, err := b.admin.ListTopics(ctx)
	if err != nil {
		return 0, err
	}
	for _, topic := range topics.Names() {
		if !strings.HasPrefix(topic, b.prefix) {
			continue
		}
		ends, err := b.admin.ListEndOffsets(ctx, topic)
		if err == nil {
			err = ends.Error()
		}
		if err != nil {
			return 0, err
		}
		ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
	}
	return sum, nil
}

// Lag is how many events the groups that have consumed anything have not committed yet, in sum, and
// how many groups those are. A name tells one group from the others; "" takes all.
func (b *Broker) Lag(ctx context.Context, name string) (events int64, groups int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	listed, err := b.admin.ListGroups(ctx)
	if err != nil {
		return 0, 0, err
	}
	var chosen []string
	for _, group := range listed.Groups() {
		if rest, ours := strings.CutPrefix(group, b.prefix); ours && strings.Contains(rest, name) {
			chosen = append(chosen, group)
		}
	}
	if len(chosen) == 0 {
		return 0, 0, nil
	}
	described, err := b.admin.Lag(ctx, chosen...)
	if err != nil {
		return 0, 0, err
	}
	for _, group := range described {
		events += max(0, group.Lag.Total())
	}
	return events, len(chosen), nil
}
