package readmodel

import (
	"testing"
	"time"
)

// Around a minute there are thousands of payments whose ids could be of it. Few are,
// and few are counted.
func TestAShortSpanIsCounted(t *testing.T) {
	pool := seededIn(t, 20_000, 1)
	q, scope := NewQueries(pool), operator(t)
	p := sample(t, pool, 1)[0]
	for span, exact := range map[time.Duration]bool{time.Minute: true, 30 * time.Minute: true, 20 * time.Hour: false} {
		f := Filter{CreatedFrom: p.CreatedAt, CreatedTo: p.CreatedAt.Add(span)}
		if exact {
			f.CreatedFrom, f.CreatedTo = p.CreatedAt.Add(-span/2), p.CreatedAt.Add(span/2)
		}
		var want int64
		if err := pool.QueryRow(scope.Bound(t.Context()), `SELECT count(*) FROM payment_view WHERE created_at >= $1 AND created_at < $2`,
			f.CreatedFrom, f.CreatedTo).Scan(&want); err != nil {
			t.Fatal(err)
		}
		got, err := q.Count(t.Context(), scope, f)
		if err != nil || got.Exact != exact || exact && got.Value != want || got.Value < want*3/4 || got.Value > want*5/4 {
			t.Errorf("%s: %+v (%v), there are %d", span, got, err, want)
		}
	}
}
