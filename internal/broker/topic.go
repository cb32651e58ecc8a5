package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

const topicPoll = 100 * time.Millisecond

// EnsureTopic makes the topic if it is missing, and returns when each partition
// has a leader that serves it. A topic with fewer partitions is refused and not extended: keys would
// move to other partitions and lose their order.
func (c *Client) EnsureTopic(ctx context.Context, topic string, partitions int) error {
	if topic == "" || partitions < 1 {
		return fmt.Errorf("a topic needs a name and at least one partition, not %q and %d", topic, partitions)
	}
	have, err := c.partitions(ctx, topic)
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		if err := c.createTopic(ctx, topic, partitions); err != nil {
			return err
		}
		have, err = c.awaitTopic(ctx, topic)
		for err == nil {
			if lerr := c.leading(ctx, topic, have); lerr == nil {
				break
			} else if !sleep(ctx, topicPoll) {
				err = lerr
			}
		}
	}
	if err != nil {
		return err
	}
	if have < partitions {
		return fmt.Errorf("topic %q has %d partitions and %d are wanted: add them by hand (docs/operations/restore.md, More partitions), or configure %d",
			topic, have, partitions, have)
	}
	return nil
}

func (c *Client) createTopic(ctx context.Context, topic string, partitions int) error {
	var entries []kafka.ConfigEntry
	if c.config.MinInSync > 0 {
		entries = append(entries, kafka.ConfigEntry{ConfigName: minInSync, ConfigValue: strconv.Itoa(c.config.MinInSync)})
	}
	if c.config.Retention > 0 {
		entries = append(entries, kafka.ConfigEntry{ConfigName: retention, ConfigValue: strconv.FormatInt(c.config.Retention.Milliseconds(), 10)})
	}
	created, err := c.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: c.prefixed(topic), NumPartitions: partitions, ReplicationFactor: c.config.ReplicationFactor, ConfigEntries: entries,
	}}})
	if err == nil {
		err = created.Errors[c.prefixed(topic)]
	}
	if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
		return fmt.Errorf("create topic %q: %w", topic, err)
	}
	return nil
}

// leading asks every partition's leader for an offset: metadata names a leader
// before it has taken the partition up.
func (c *Client) leading(ctx context.Context, topic string, partitions int) error {
	asked := make([]kafka.OffsetRequest, partitions)
	for i := range asked {
		asked[i] = kafka.FirstOffsetOf(i)
	}
	res, err := c.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{c.prefixed(topic): asked}})
	if err != nil {
		return fmt.Errorf("ask the leaders of topic %q: %w", topic, err)
	}
	for _, o := range res.Topics[c.prefixed(topic)] {
		if o.Error != nil {
			return fmt.Errorf("ask the leader of %s/%d: %w", topic, o.Partition, o.Error)
		}
	}
	return nil
}

// awaitTopic waits for the topic to become known, whoever makes it, through
// whatever ails the broker, until ctx ends.
func (c *Client) awaitTopic(ctx context.Context, topic string) (partitions int, err error) {
	for {
		if partitions, err = c.partitions(ctx, topic); err == nil || !sleep(ctx, topicPoll) {
			return partitions, err
		}
	}
}

// Partitions of a topic; 0 if there is none. It makes none.
func (c *Client) Partitions(ctx context.Context, topic string) (int, error) {
	n, err := c.partitions(ctx, topic)
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		return 0, nil
	}
	return n, err
}

// partitions answers from metadata that is at most metadataTTL old.
func (c *Client) partitions(ctx context.Context, topic string) (int, error) {
	m, err := c.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{c.prefixed(topic)}})
	if err == nil {
		err = m.Topics[0].Error
	}
	if err != nil {
		return 0, fmt.Errorf("look topic %q up: %w", topic, err)
	}
	for _, p := range m.Topics[0].Partitions {
		if errors.Is(p.Error, kafka.LeaderNotAvailable) {
			return 0, fmt.Errorf("look topic %q up: partition %d: %w", topic, p.ID, p.Error)
		}
	}
	return len(m.Topics[0].Partitions), nil
}

// sleep is false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
