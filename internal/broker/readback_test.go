package broker_test

import (
	"fmt"
	"slices"
	"testing"

	"payments/internal/broker"
	"payments/internal/inbox"
	"payments/internal/outbox"
)

// A topic is read backwards, page by page, and of each partition as far as it is wanted.
func TestATopicIsReadBackwards(t *testing.T) {
	c, _ := client(t)
	topic := topic(t, c, 2)
	keys := map[int]string{}
	for n := 0; len(keys) < 2; n++ {
		key := fmt.Sprintf("key-%d", n)
		keys[c.Partition(key, 2)] = key
	}
	const long = 1203
	var sent []outbox.Message
	for n := range long {
		sent = append(sent, message(topic, keys[0], n+1))
	}
	sent = append(sent, message(topic, keys[1], 1), message(topic, keys[1], 2))
	if err := broker.NewPublisher(c).Publish(t.Context(), sent); err != nil {
		t.Fatal(err)
	}
	for _, all := range []bool{true, false} {
		read, pages := map[int][]string{}, map[int]int{}
		if err := c.ReadBack(t.Context(), topic, func(page []inbox.Message) (bool, error) {
			var ids []string
			for _, m := range page {
				ids = append(ids, m.Headers[inbox.HeaderID])
			}
			at := page[0].Partition
			pages[at]++
			read[at] = append(ids, read[at]...)
			return all, nil
		}); err != nil {
			t.Fatal(err)
		}
		for at, key := range keys {
			var want []string
			for _, m := range sent {
				if m.Key == key {
					want = append(want, m.ID)
				}
			}
			if !all {
				want = want[max(0, len(want)-500):]
			}
			if !slices.Equal(read[at], want) {
				t.Errorf("partition %d, all %v: %d records, want %d", at, all, len(read[at]), len(want))
			}
			if at == 0 && all && pages[at] != 3 || !all && pages[at] != 1 {
				t.Errorf("partition %d, all %v: %d pages", at, all, pages[at])
			}
		}
	}
}
