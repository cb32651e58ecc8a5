package readmodel

import (
	"fmt"
	"sync"
	"testing"

	"payments/internal/inbox"
)

// Consuming, from the batch that the broker gave to the commit: payments of five
// events each, of one merchant, in a log where every payment's events lie apart. An
// operation is one event. The batch is of all partitions together, as the consumer hands
// it on, or each partition's part is applied apart, at the same time, as it was before.
//
//	go test -run '^$' -bench Projection -benchtime 20000x ./internal/readmodel
func BenchmarkProjection(b *testing.B) {
	for _, size := range []int{1, 30, 100, 500} {
		for _, partitions := range []int{1, 6} {
			for _, together := range []bool{true, false} {
				if partitions == 1 && !together || size < partitions && partitions > 1 {
					continue
				}
				b.Run(fmt.Sprintf("batch=%d/partitions=%d/together=%v", size, partitions, together), func(b *testing.B) {
					benchProjection(b, size, partitions, together)
				})
			}
		}
	}
}

func benchProjection(b *testing.B, size, partitions int, together bool) {
	b.Helper()
	w := newWorld(b)
	merchant := w.merchant()
	const underWay = 200 // payments at a time
	var topic []inbox.Message
	for len(topic) < b.N {
		lives := make([][]inbox.Message, underWay)
		for i := range lives {
			lives[i] = w.order(merchant).succeeded()
		}
		for step := range lives[0] {
			for i, l := range lives {
				l[step].Partition = i % partitions
				topic = append(topic, l[step])
			}
		}
	}
	topic = topic[:b.N]
	for i := range topic {
		topic[i].Offset = int64(i)
	}
	apply := func(batches [][]inbox.Message) {
		for i, taken := range w.inbox.ApplyAll(b.Context(), 1, batches) {
			if taken.Err != nil || taken.N != len(batches[i]) {
				b.Errorf("%d of %d: %v", taken.N, len(batches[i]), taken.Err)
			}
		}
	}
	b.ResetTimer()
	for next := 0; next < len(topic) && !b.Failed(); next += size {
		batches := make([][]inbox.Message, partitions)
		for _, m := range topic[next:min(next+size, len(topic))] {
			batches[m.Partition] = append(batches[m.Partition], m)
		}
		if together {
			apply(batches)
			continue
		}
		var all sync.WaitGroup
		for _, batch := range batches {
			all.Go(func() { apply([][]inbox.Message{batch}) })
		}
		all.Wait()
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	if letters := w.deadLetters(); len(letters) > 0 {
		b.Fatalf("dead letters: %q", letters[:1])
	}
}
