package broker

import (
	"context"
	"fmt"

	"payments/internal/inbox"
)

// backPage is how many offsets one page of ReadBack spans.
const backPage = 500

// ReadBack reads the topic backwards, outside of any group: of each partition it hands over a page of
// records after another, the newest page first and in the order of their offsets, until
// visit says that it needs no more of the partition, or the log begins.
func (c *Client) ReadBack(ctx context.Context, topic string, visit func([]inbox.Message) (more bool, err error)) error {
	spans, err := c.Spans(ctx, topic)
	if err != nil {
		return err
	}
	for partition, span := range spans {
		for end := span[1]; end > span[0]; {
			begin := max(span[0], end-backPage)
			page, err := c.readBetween(ctx, topic, partition, begin, end)
			if err != nil {
				return fmt.Errorf("read %s/%d from offset %d back: %w", topic, partition, end, err)
			}
			more, err := visit(page)
			if err != nil {
				return err
			}
			if !more {
				break
			}
			end = begin
		}
	}
	return nil
}

// readBetween is what the partition holds from offset begin to below end. A log may have
// fewer records than offsets.
func (c *Client) readBetween(ctx context.Context, topic string, partition int, begin, end int64) (page []inbox.Message, err error) {
	for at := begin; at < end; {
		batch, _, err := c.fetch(ctx, topic, partition, at, fetchWait)
		if err != nil {
			return nil, err
		}
		if len(batch) == 0 {
			break
		}
		for _, m := range batch {
			if m.Offset < end {
				page = append(page, m)
			}
		}
		at = batch[len(batch)-1].Offset + 1
	}
	return page, nil
}
