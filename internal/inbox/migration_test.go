package inbox

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
	"payments/migrations"
)

// What consumers of the schema before partitions had seen is seen, and
// their dead letters are dead letters, after it.
func TestTheMigrationCarriesIdsAndDeadLettersOver(t *testing.T) {
	db := devtest.Database(t)
	config, err := pgx.ParseConfig(db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	owner := stdlib.OpenDB(*config)
	defer owner.Close()
	versions, err := goose.NewProvider(goose.DialectPostgres, owner, migrations.FS)
	if err != nil {
		t.Fatal(err)
	}
	ours := []int64{5, 16, 20, 31, 35, 38, 39} // those behind the first use what it makes
	for _, version := range slices.Backward(ours) {
		if _, err := versions.ApplyVersion(t.Context(), version, false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := owner.ExecContext(t.Context(), `
		INSERT INTO inbox_messages (consumer, message_id) VALUES ('test', 'evt_01jq0c8v8pf3n8t3m5x9z4k2q7'), ('test', 'a-1');
		INSERT INTO inbox_parked (consumer, topic, partition, "offset", key, headers, value, reason) VALUES
			('test', 'events', 0, 7, 'k', '{"ce_id": "k-1"}', '{}', 'broken'), ('test', 'events', 0, 8, 'k', '{"ce_id": "k-2"}', '{}', 'waits')`); err != nil {
		t.Fatal(err)
	}
	for _, version := range ours {
		if _, err := versions.ApplyVersion(t.Context(), version, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := postgres.Migrate(t.Context(), db.OwnerURL, db.URL); err != nil { // grants the tables made anew
		t.Fatal(err)
	}
	pool, err := postgres.Open(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	same(t, "days", column(t, pool, `SELECT message_id || ' ' || made_on FROM inbox_messages ORDER BY made_on`),
		"a-1 0001-01-01", "evt_01jq0c8v8pf3n8t3m5x9z4k2q7 "+madeOn("evt_01jq0c8v8pf3n8t3m5x9z4k2q7").Format("2006-01-02"))
	if _, err := owner.ExecContext(t.Context(), `
		CREATE TABLE effects (n int GENERATED ALWAYS AS IDENTITY, id text NOT NULL, positive int); GRANT ALL ON effects TO PUBLIC`); err != nil {
		t.Fatal(err)
	}
	in := restart(t, pool, record)
	seen := message(1, "evt", 1)
	seen.Headers[HeaderID] = "evt_01jq0c8v8pf3n8t3m5x9z4k2q7"
	apply(t, in, seen, message(2, "a", 1), message(9, "k", 3))
	same(t, "effects", effects(t, pool))
	r, err := NewDeadLetters(pool, in).Replay(t.Context(), blockedID("test", "events", []byte("k")))
	if err != nil || !r.Released {
		t.Fatalf("replay: %+v, %v", r, err)
	}
	same(t, "effects", effects(t, pool), "k-1", "k-2", "k-3")
}
