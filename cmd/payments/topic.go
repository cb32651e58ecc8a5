package main

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"payments/internal/payment"
)

// topicTimeout bounds one look at the topic, so that a broker that never answers is logged.
const topicTimeout = 30 * time.Second

// topic makes the topic of the events and checks what it promises. Nothing is published
// before the topic was found fit once. What happens to it later is an error of this loop,
// and of whoever is refused by the broker.
type topic struct {
	*service
	fit      atomic.Bool
	warnings []string // as logged last
}

// runOnce looks again each minute: a topic's configuration can change.
func (t *topic) runOnce(ctx context.Context) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, topicTimeout)
	defer cancel()
	if err := t.broker.EnsureTopic(ctx, payment.Topic, t.KafkaPartitions); err != nil {
		return false, fmt.Errorf("make the topic of the events: %w", err)
	}
	warnings, err := t.broker.CheckTopic(ctx, payment.Topic)
	if err != nil {
		return false, fmt.Errorf("check the topic of the events: %w", err)
	}
	if !slices.Equal(warnings, t.warnings) {
		for _, w := range warnings {
			t.log.WarnContext(ctx, "topic is weaker than it should be", "warning", w)
		}
		t.warnings = warnings
	}
	t.fit.Store(true)
	return false, nil
}
