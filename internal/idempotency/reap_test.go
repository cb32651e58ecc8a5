package idempotency

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestReap(t *testing.T) {
	pool, ownerURL := open(t)
	for i := range 7 {
		if _, err := serve(t, pool, request("mer_1", fmt.Sprint("key-", i), `{}`), answer, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	owner, err := pgx.Connect(t.Context(), ownerURL) // the service's role may not rewrite an answer
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(t.Context())
	// Keys 0 to 4 are older than the retention by the database's clock, 4 the most; 5 is a minute short of it; 6 is new.
	if _, err := owner.Exec(t.Context(), `
		UPDATE idempotency_keys
		SET created_at = now() - interval '31 days' - interval '1 minute' * CASE key
			WHEN 'key-5' THEN -1 ELSE right(key, 1)::int + 1 END
		WHERE key <> 'key-6'`); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		deleted int
		left    []string
	}{
		{3, []string{"key-0", "key-1", "key-5", "key-6"}},
		{2, []string{"key-5", "key-6"}},
		{0, []string{"key-5", "key-6"}},
	} {
		if got, err := Reap(t.Context(), pool, Retention, 3); err != nil || got != want.deleted {
			t.Fatalf("reaped %d, %v, want %d", got, err, want.deleted)
		}
		var left []string
		if err := pool.QueryRow(t.Context(), `SELECT array_agg(key ORDER BY key) FROM idempotency_keys`).Scan(&left); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(left, want.left) {
			t.Errorf("left are %v, want %v", left, want.left)
		}
	}
}
