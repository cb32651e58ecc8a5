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
	ctx := scope.Bound(t.Context())
	var first, last time.Time
	if err := pool.QueryRow(ctx, `SELECT min(created_at), max(created_at) FROM payment_view`).Scan(&first, &last); err != nil {
		t.Fatal(err)
	}
	middle := first.Add(last.Sub(first) / 2)
	for span, exact := range map[time.Duration]bool{time.Minute: true, 30 * time.Minute: true, 20 * time.Hour: false} {
		f := Filter{CreatedFrom: middle.Add(-span / 2), CreatedTo: middle.Add(span / 2)}
		var want int64
		if err := pool.QueryRow(ctx, `SELECT count(*) FROM payment_view WHERE created_at >= $1 AND created_at < $2`, f.CreatedFrom, f.CreatedTo).Scan(&want); err != nil {
			t.Fatal(err)
		}
		got, err := q.Count(t.Context(), scope, f)
		if err != nil || got.Exact != exact || exact && got.Value != want || got.Value < want*3/4 || got.Value > want*5/4 {
			t.Errorf("%s: %+v (%v), there are %d", span, got, err, want)
		}
	}
}
