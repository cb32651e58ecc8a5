package readmodel

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/devstack/devtest"
	"payments/internal/inbox"
	"payments/internal/postgres"
)

// tally has the statements that a pool has sent, in order.
type tally struct {
	mu  sync.Mutex
	all []string
}

func (s *tally) add(sql string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, strings.TrimSpace(sql))
}

func (s *tally) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	s.add(d.SQL)
	return ctx
}

func (*tally) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (*tally) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (s *tally) TraceBatchQuery(_ context.Context, _ *pgx.Conn, d pgx.TraceBatchQueryData) {
	s.add(d.SQL)
}

func (*tally) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// sent are the statements while do runs.
func (s *tally) sent(do func()) []string {
	s.mu.Lock()
	s.all = nil
	s.mu.Unlock()
	do()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

// traced is a world whose projector's statements are counted, and in which each write of
// a merchant's head leaves a row.
func traced(t *testing.T) (*world, *tally) {
	t.Helper()
	w := newWorld(t)
	db := devtest.Database(t)
	owner, err := pgx.Connect(t.Context(), db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(t.Context())
	if _, err := owner.Exec(t.Context(), `
		CREATE TABLE head_writes (merchant_id text);
		GRANT ALL ON head_writes TO PUBLIC;
		CREATE FUNCTION note_head() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO head_writes VALUES (NEW.merchant_id); RETURN NULL; END $$;
		CREATE TRIGGER note_head AFTER INSERT OR UPDATE ON feed_heads FOR EACH ROW EXECUTE FUNCTION note_head()`); err != nil {
		t.Fatal(err)
	}
	plain, err := postgres.Open(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	s := &tally{}
	c := plain.Config()
	c.ConnConfig.Tracer = s
	if w.pool, err = pgxpool.NewWithConfig(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.pool.Close)
	w.queries = NewQueries(w.pool)
	if w.inbox, err = NewProjector().NewInbox(w.pool, "payment_view", inbox.Config{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()}); err != nil {
		t.Fatal(err)
	}
	return w, s
}

// A batch of any number of payments, of any number of partitions, takes the same few
// statements and two commits, of which one waits for the disk; the feed's heads are
// written once a merchant, by the last statement.
func TestABatchTakesTheSameFewStatementsWhateverItsSize(t *testing.T) {
	w, s := traced(t)
	merchants := []string{w.merchant(), w.merchant(), w.merchant()}
	// All five events of so many payments in each of so many partitions, as one batch.
	batch := func(partitions, payments int) (batches [][]inbox.Message) {
		for p := range partitions {
			var topic []inbox.Message
			lives := make([][]inbox.Message, payments)
			for i := range lives {
				lives[i] = w.order(merchants[i%len(merchants)]).succeeded()
			}
			for step := range 5 {
				for _, l := range lives {
					m := l[step]
					w.offset++
					m.Partition, m.Offset = p, w.offset
					topic = append(topic, m)
				}
			}
			batches = append(batches, topic)
		}
		return batches
	}
	apply := func(batches [][]inbox.Message) []string {
		return s.sent(func() {
			for i, taken := range w.inbox.ApplyAll(t.Context(), 1, batches) {
				if taken.Err != nil || taken.N != len(batches[i]) {
					t.Fatalf("%d of %d: %v", taken.N, len(batches[i]), taken.Err)
				}
			}
		})
	}
	apply(batch(6, 1)) // claims, and plans of statements
	small := apply(batch(1, 1))
	if _, err := w.pool.Exec(t.Context(), `DELETE FROM head_writes`); err != nil {
		t.Fatal(err)
	}
	large := apply(batch(6, 30))
	if len(small) != len(large) {
		t.Errorf("5 events of one partition take %d statements, 900 of six take %d:\n%s", len(small), len(large), strings.Join(large, "\n---\n"))
	}
	const most = 18
	if len(large) > most {
		t.Errorf("a batch takes %d statements, want at most %d:\n%s", len(large), most, strings.Join(large, "\n---\n"))
	}
	commits := 0
	for _, sql := range large {
		if sql == "commit" {
			commits++
		}
	}
	if last := large[len(large)-2:]; commits != 1 || last[1] != "commit" || !strings.Contains(last[0], "feed_heads") {
		t.Errorf("%d commits; the last statements are %q", commits, last)
	}
	var writes string
	if err := w.pool.QueryRow(t.Context(), `SELECT count(*) || ' of ' || count(DISTINCT merchant_id) FROM head_writes`).Scan(&writes); err != nil {
		t.Fatal(err)
	}
	same(t, "writes of heads", writes, "3 of 3")
	for _, m := range merchants {
		same(t, "events of the feed", len(w.told(m, 0)), func() int {
			n := 0
			if err := w.pool.QueryRow(t.Context(), `SELECT count(*) FROM payment_timeline WHERE merchant_id = $1`, m).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}())
	}
	t.Logf("%d statements a batch:\n%s", len(large), strings.Join(large, "\n---\n"))
}
