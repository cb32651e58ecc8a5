package outbox_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"payments/internal/devstack/devtest"
	"payments/internal/outbox"
	"payments/internal/postgres"
	"payments/migrations"
)

const migration = 4

// What the outbox held before it had partitions is published from where the one
// relay had come to, and the way back keeps it too.
func TestTheMigrationKeepsWhatWasWritten(t *testing.T) {
	db := devtest.Database(t)
	config, err := pgx.ParseConfig(db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	sql := stdlib.OpenDB(*config)
	t.Cleanup(func() { _ = sql.Close() })
	p, err := goose.NewProvider(goose.DialectPostgres, sql, migrations.FS)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.DownTo(t.Context(), migration-1); err != nil {
		t.Fatal(err)
	}
	owner := open(t, db.OwnerURL)
	insert := `INSERT INTO outbox (merchant_id, id, topic, key, sequence, headers, payload) VALUES ('m', $1, 'events', $2, $3, $4, '{}')`
	execute(t, owner, insert, "a-1", "a", 1, `[]`)
	execute(t, owner, `UPDATE outbox_relays SET done = pg_current_snapshot()`)
	execute(t, owner, insert, "a-2", "a", 2, `[["k", "\"v\\"], ["k", "ü"]]`)
	execute(t, owner, insert, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8-1", "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", 1, `[]`)
	if err := postgres.Migrate(t.Context(), db.OwnerURL, db.URL); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8"} {
		if got := query[int32](t, owner, `SELECT min(key_hash) FROM outbox WHERE key = $1`, key); got != outbox.Hash(key) {
			t.Errorf("the hash of %s is %d in the table, want %d", key, got, outbox.Hash(key))
		}
	}
	pool, w := open(t, db.URL), &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{Shards: 4})
	turn(t, r)
	same(t, "published after the migration, by any shard", sorted(w.ids()), "a-2", "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8-1")
	for _, m := range w.sent {
		if m.ID == "a-2" {
			if diff := cmp.Diff([]outbox.Header{{Key: "k", Value: `"v\`}, {Key: "k", Value: "ü"}}, m.Headers); diff != "" {
				t.Error(diff)
			}
		}
	}
	if err := r.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.DownTo(t.Context(), migration-1); err != nil {
		t.Fatal(err)
	}
	execute(t, owner, insert, "a-3", "a", 3, `[]`)
	left := query[string](t, owner, `
		SELECT string_agg(id, ' ' ORDER BY position) FROM outbox, outbox_relays WHERE NOT pg_visible_in_snapshot(xid, done)`)
	if left != "a-3" {
		t.Errorf("after the way back %s are not published, want a-3", left)
	}
	if got := query[string](t, owner, `SELECT headers::text FROM outbox WHERE id = 'a-2'`); got != `[["k", "\"v\\"], ["k", "ü"]]` {
		t.Errorf("after the way back the headers are %s", got)
	}
}
