package readmodel

import (
	"net/url"
	"testing"
	"time"

	"payments/internal/access"
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

// The planner knows what every merchant has. A merchant's count tells of that merchant's alone.
func TestCount_TellsNothingOfOtherMerchants(t *testing.T) {
	pool := seededIn(t, 20_000, 1)
	q, all := NewQueries(pool), operator(t).Bound(t.Context())
	var merchant string
	var own int64
	if err := pool.QueryRow(all, `SELECT merchant_id, count(*) FROM payment_view GROUP BY 1 ORDER BY 2 DESC LIMIT 1`).Scan(&merchant, &own); err != nil {
		t.Fatal(err)
	}
	var rare string // a currency that others have, and this merchant does not
	if _, err := pool.Exec(all, `UPDATE payment_view SET currency = 'CHF' WHERE merchant_id <> $1`, merchant); err != nil {
		t.Fatal(err)
	}
	if err := pool.QueryRow(all, `SELECT currency FROM payment_view WHERE merchant_id <> $1 LIMIT 1`, merchant).Scan(&rare); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(all, `UPDATE payment_view SET currency = 'EUR' WHERE merchant_id = $1`, merchant); err != nil {
		t.Fatal(err)
	}
	scope := scope(t, access.Principal{KeyID: "key_1", Role: access.RoleMerchant, MerchantID: merchant})
	for query, want := range map[string]Count{
		"currency=" + rare: {Value: 0, Exact: true},
		"currency=EUR":     {Value: min(own, ownRows), Exact: own <= ownRows, AtLeast: own > ownRows},
		"":                 {Value: min(own, ownRows), Exact: own <= ownRows, AtLeast: own > ownRows},
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		f, err := ParseFilter(values)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := q.Count(t.Context(), scope, f); err != nil || got != want {
			t.Errorf("%q: %+v (%v), want %+v of %d", query, got, err, want, own)
		}
	}
}
