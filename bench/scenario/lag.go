package scenario

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// lag counts the events that the service's consumers have not committed yet.
type lag struct {
	admin  *kadm.Client
	prefix string
}

func newLag(brokers, prefix string) (*lag, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...))
	if err != nil {
		return nil, err
	}
	return &lag{kadm.NewClient(client), prefix}, nil
}

func (l *lag) close() { l.admin.Close() }

func (l *lag) events(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	listed, err := l.admin.ListGroups(ctx)
	if err != nil {
		return 0, err
	}
	var groups []string
	for _, name := range listed.Groups() {
		if strings.HasPrefix(name, l.prefix) {
			groups = append(groups, name)
		}
	}
	if len(groups) == 0 {
		return 0, nil
	}
	described, err := l.admin.Lag(ctx, groups...)
	if err != nil {
		return 0, err
	}
	sum := int64(0)
	for _, group := range described {
		sum += max(0, group.Lag.Total())
	}
	return sum, nil
}

func (l *lag) settle(ctx context.Context, within time.Duration) error {
	deadline := time.Now().Add(within)
	for {
		n, err := l.events(ctx)
		if err != nil || n == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("consumers are still %d events behind %s after the load ended", n, within)
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}
