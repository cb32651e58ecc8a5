package readmodel

import (
	"strconv"
	"testing"

	"payments/internal/inbox"
)

// Consuming, from the batch that the broker gave to the commit: payments of five
// events each, in a log where every payment's events lie apart. An operation is
// one event.
//
//	go test -run '^$' -bench Projection -benchtime 20000x ./internal/readmodel
//
// Two cores of an AMD EPYC shared with other work, Postgres 15 on the same machine
// without fsync, one partition: 15,920 events/s in batches of 500, 8,167 in batches
// of 100 and 451 one by one; 1,384, 1,258 and 863 before batches were applied as
// such (each event behind its own savepoint, and no attempt on record).
func BenchmarkProjection(b *testing.B) {
	for _, size := range []int{1, 100, 500} {
		b.Run("batch="+strconv.Itoa(size), func(b *testing.B) {
			w := newWorld(b)
			merchant := w.merchant()
			const together = 200 // payments under way at a time
			var topic []inbox.Message
			for len(topic) < b.N {
				lives := make([][]inbox.Message, together)
				for i := range lives {
					lives[i] = w.order(merchant).succeeded()
				}
				for step := range lives[0] {
					for _, l := range lives {
						topic = append(topic, l[step])
					}
				}
			}
			topic = topic[:b.N]
			for i := range topic {
				topic[i].Offset = int64(i)
			}
			b.ResetTimer()
			for next := 0; next < len(topic); {
				n, err := w.inbox.Apply(b.Context(), 1, topic[next:min(next+size, len(topic))])
				if err != nil {
					b.Fatal(err)
				}
				next += n
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			if parked := w.parked(); len(parked) > 0 {
				b.Fatalf("parked: %q", parked[:1])
			}
		})
	}
}
