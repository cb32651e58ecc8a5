package broker

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// Of a topic's configuration.
const (
	minInSync = "min.insync.replicas"
	retention = "retention.ms"
	cleanup   = "cleanup.policy"
	maxBytes  = "max.message.bytes"
)

// CheckTopic looks at what a topic promises. An error names what makes it unfit: it
// could acknowledge nothing, or it forgets a key's earlier events. A warning names
// what is less than the configuration asks of a topic that has to be made, lets an
// acknowledged event be lost with one broker, or makes batches smaller than ours. Those
// that are published from here on are as large as the topic takes.
func (c *Client) CheckTopic(ctx context.Context, topic string) (warnings []string, err error) {
	replicas, err := c.replicas(ctx, topic)
	if err != nil {
		return nil, err
	}
	is, err := c.topicConfig(ctx, topic)
	if err != nil {
		return nil, err
	}
	warn := func(format string, args ...any) {
		warnings = append(warnings, fmt.Sprintf("topic %q "+format, append([]any{topic}, args...)...))
	}
	if strings.Contains(is[cleanup], "compact") {
		return nil, fmt.Errorf("topic %q has %s=%s, which keeps a key's last event only: set it to delete", topic, cleanup, is[cleanup])
	}
	if n, err := strconv.Atoi(is[minInSync]); err == nil {
		switch {
		case n > replicas:
			return nil, fmt.Errorf("topic %q has %s=%d and %d replicas, and so acknowledges nothing", topic, minInSync, n, replicas)
		case n < c.config.MinInSync:
			warn("has %s=%d and %d is configured", minInSync, n, c.config.MinInSync)
		case n == 1 && replicas > 1:
			warn("has %s=1: an event that one broker has acknowledged is lost with it", minInSync)
		}
	}
	if replicas < c.config.ReplicationFactor {
		warn("has %d replicas and %d are configured", replicas, c.config.ReplicationFactor)
	}
	if ms, err := strconv.ParseInt(is[retention], 10, 64); err == nil && ms >= 0 {
		if kept := time.Duration(ms) * time.Millisecond; kept < c.config.Retention {
			warn("keeps events for %s and %s is configured: a consumer that is away for longer misses some", kept, c.config.Retention)
		}
	}
	if most, err := strconv.Atoi(is[maxBytes]); err == nil {
		if most < maxRequest+batchOverhead {
			warn("has %s=%d: a backlog is sent in small batches, and an event that is larger is never taken and holds up its partition", maxBytes, most)
		}
		c.requests.set(topic, most-batchOverhead)
	}
	return warnings, nil
}

// replicas of the partition that has the fewest.
func (c *Client) replicas(ctx context.Context, topic string) (int, error) {
	m, err := c.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{c.prefixed(topic)}})
	if err == nil {
		err = m.Topics[0].Error
	}
	if err != nil {
		return 0, fmt.Errorf("look topic %q up: %w", topic, err)
	}
	fewest := 0
	for i, p := range m.Topics[0].Partitions {
		if n := len(p.Replicas); i == 0 || n < fewest {
			fewest = n
		}
	}
	return fewest, nil
}

func (c *Client) topicConfig(ctx context.Context, topic string) (map[string]string, error) {
	res, err := c.client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: c.prefixed(topic), ConfigNames: []string{minInSync, retention, cleanup, maxBytes},
	}}})
	if err != nil {
		return nil, fmt.Errorf("look at the configuration of topic %q: %w", topic, err)
	}
	is := map[string]string{}
	for _, r := range res.Resources {
		if r.Error != nil {
			return nil, fmt.Errorf("look at the configuration of topic %q: %w", topic, r.Error)
		}
		for _, e := range r.ConfigEntries {
			is[e.ConfigName] = e.ConfigValue
		}
	}
	return is, nil
}
