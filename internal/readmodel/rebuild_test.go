package readmodel

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"

	"payments/internal/inbox"
	"payments/internal/payment"
)

// described are the tables' indexes, constraints and grants.
func (s *shop) described() []string {
	s.t.Helper()
	var all []string
	if err := s.owner.QueryRow(s.t.Context(), `
		SELECT array_agg(line ORDER BY line) FROM (
			SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename = ANY ($1)
			UNION ALL SELECT c.conname || ' ' || pg_get_constraintdef(c.oid) FROM pg_constraint c WHERE c.conrelid = ANY ($1::regclass[])
			UNION ALL SELECT c.relname || ' ' || a::text FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = ANY ($1::regclass[])
			UNION ALL SELECT c.relname || ' ' || c.relrowsecurity || c.relforcerowsecurity || p.polname || pg_get_expr(p.polqual, p.polrelid)
				FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid WHERE c.oid = ANY ($1::regclass[])
			UNION ALL SELECT table_name || ' ' || column_name || ' ' || data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '')
				|| ' ' || coalesce(collation_name, '')
				FROM information_schema.columns WHERE table_schema = 'public' AND table_name = ANY ($1)) l (line)`,
		[]string{"payment_view", "refund_view", "payment_timeline", "payment_term"}).Scan(&all); err != nil {
		s.t.Fatal(err)
	}
	return all
}

func (s *shop) seeded(n int) {
	s.t.Helper()
	s.posts(n)
	s.settles()
	s.refund()
	s.settles()
}

func TestARebuildWhilePostsQueriesAndTheProjectorGoOn(t *testing.T) {
	for name, separate := range map[string]bool{"one database": false, "a read database of its own": true} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, separate)
			s.project()
			s.seeded(24)
			before := s.described()
			stop := s.traffic()
			r, err := s.rebuild()
			if posts, queries, _ := stop(); posts == 0 || queries == 0 {
				t.Errorf("%d posts and %d queries beside the rebuild", posts, queries)
			}
			if err != nil || !r.Swapped || r.Different != 0 || r.Payments < 24 || r.Refunds == 0 || r.Lines == 0 {
				t.Fatalf("%+v: %v", r, err)
			}
			same(t, "tables", s.described(), before)
			s.settles()
			kept := s.contents()
			again, err := s.rebuild()
			if err != nil || again.Different != 0 || again.Behind != 0 || again.Compared < r.Compared {
				t.Errorf("a second time, at rest: %+v: %v", again, err)
			}
			same(t, "contents", s.contents(), kept)
			if left := s.leftovers(); left != 0 {
				t.Errorf("%d leftovers", left)
			}
			same(t, "dead letters", (&world{t: t, pool: s.read}).deadLetters(), []string{})
		})
	}
}

func TestARebuildFindsAndHealsWhatIsWrong(t *testing.T) {
	s := newShop(t, false)
	s.project()
	s.seeded(24)
	good := s.contents()
	var ids []string
	if err := s.read.QueryRow(t.Context(), `SELECT array_agg(payment_id ORDER BY status = 'succeeded' DESC, payment_id) FROM payment_view`).Scan(&ids); err != nil {
		t.Fatal(err)
	}
	row, refund, line, lost, stray, fast, unfound := ids[0], ids[1], ids[2], ids[3], "pay_01jqh0000000000000000000zz", ids[4], ids[5]
	for _, spoil := range []struct {
		sql string
		id  string
	}{
		{`UPDATE payment_view SET status = 'canceled', amount_captured = 1 WHERE payment_id = $1`, row},
		{`UPDATE refund_view SET status = 'failed', failure_code = 'x' WHERE payment_id = $1`, refund},
		{`DELETE FROM payment_timeline WHERE payment_id = $1 AND sequence = 2`, line},
		{`DELETE FROM payment_view WHERE payment_id = $1`, lost},
		{`INSERT INTO payment_view SELECT merchant_id, $1, 'ord_01jqh0000000000000000000zz', sequence, status, currency, amount, amount_captured,
			amount_refunded, payment_method, capture_method, customer_reference, customer_email_ciphertext, order_reference, lines, failure,
			created_at, updated_at FROM payment_view ORDER BY payment_id DESC LIMIT 1`, stray},
		{`UPDATE payment_view SET sequence = sequence + 1 WHERE payment_id = $1`, fast},
		{`DELETE FROM payment_term WHERE payment_id = $1`, unfound},
	} {
		if tag, err := s.read.Exec(t.Context(), spoil.sql, spoil.id); err != nil || tag.RowsAffected() == 0 {
			t.Fatalf("%s: %v %v", spoil.sql, tag, err)
		}
	}
	bad := s.contents()
	r, err := s.rebuild()
	if !errors.Is(err, ErrDifferent) || r.Swapped || r.Different != 6 || r.Behind != 1 {
		t.Fatalf("%+v: %v", r, err)
	}
	got := map[string]string{}
	for _, d := range r.Differences {
		got[d.PaymentID] = d.What
	}
	same(t, "differences", got, map[string]string{
		row: "amount_captured, status", refund: "refunds", line: "timeline", stray: unknown, fast: further, unfound: "terms",
	})
	same(t, "the live tables", s.contents(), bad)
	r, err = s.rebuild(func(c *RebuildConfig) { c.Accept = true })
	if err != nil || !r.Swapped || r.Different != 6 {
		t.Fatalf("%+v: %v", r, err)
	}
	same(t, "healed", s.contents(), good)
	var terms int
	if err := s.read.QueryRow(t.Context(), `SELECT count(*) FROM payment_term WHERE payment_id = $1`, unfound).Scan(&terms); err != nil || terms == 0 {
		t.Errorf("%s is found by %d terms (%v)", unfound, terms, err)
	}
	// The projector goes on with what was healed.
	s.refund()
	s.settles()
	same(t, "dead letters", (&world{t: t, pool: s.read}).deadLetters(), []string{})
}

func TestARebuildThatIsKilledIsRunAgain(t *testing.T) {
	s := newShop(t, false)
	s.project()
	s.seeded(12)
	before := s.contents()
	for _, phase := range Phases {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := s.rebuildIn(ctx, func(c *RebuildConfig) {
			c.Enter = func(p Phase) {
				if p == phase {
					cancel()
				}
			}
		})
		cancel()
		if !errors.Is(err, context.Canceled) || r.Swapped {
			t.Fatalf("%s: %+v: %v", phase, r, err)
		}
		same(t, "after a kill at "+string(phase), s.contents(), before)
	}
	// As a process that is killed leaves it: not even the end of the rebuild has run.
	for _, sql := range []string{
		`CREATE SCHEMA IF NOT EXISTS payment_view_next`, `CREATE TABLE payment_view_next.payment_view AS SELECT * FROM payment_view`,
		`INSERT INTO inbox_offsets (consumer, topic, partition, generation, next_offset) VALUES ('payment_view_next', '` + payment.Topic + `', 0, 9, 99)`,
	} {
		if _, err := s.owner.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	s.posts(4)
	s.settles()
	if r, err := s.rebuild(); err != nil || !r.Swapped || r.Different != 0 {
		t.Fatalf("%+v: %v", r, err)
	}
	if left := s.leftovers(); left != 0 {
		t.Errorf("%d leftovers", left)
	}
	s.posts(4)
	s.settles()
}

// An order's first event has the time of the order, and its row that of the insert.
func TestAnOrderThatWasOnlyPlacedIsTheSameInBothModels(t *testing.T) {
	s := newShop(t, false)
	s.project()
	s.stopSagas()
	s.posts(3)
	awaits(t, "events to be projected", s.read, `SELECT 3 - count(*) FROM payment_view WHERE sequence = 1`)
	if r, err := s.rebuild(); err != nil || r.Different != 0 || r.Compared != 3 || r.Behind != 0 {
		t.Errorf("%+v: %v", r, err)
	}
}

func TestOneRebuildAtATime(t *testing.T) {
	s := newShop(t, false)
	s.posts(1)
	var second error
	r, err := s.rebuild(func(c *RebuildConfig) {
		c.Enter = func(p Phase) {
			if p == PhaseCompare {
				_, second = s.rebuild()
			}
		}
	})
	if err != nil || !r.Swapped {
		t.Errorf("the first: %+v: %v", r, err)
	}
	if !errors.Is(second, ErrRebuilding) {
		t.Errorf("the second: %v", second)
	}
	if _, err := s.rebuild(); err != nil {
		t.Errorf("after the first: %v", err)
	}
}

// What bars the swap is waited for, and readers that it makes queue are not held up.
func TestASwapGivesUpBehindALongReaderAndComesAgain(t *testing.T) {
	s := newShop(t, false)
	s.posts(2)
	reader, err := s.read.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Rollback(t.Context())
	if _, err := reader.Exec(t.Context(), `SELECT count(*) FROM payment_view`); err != nil {
		t.Fatal(err)
	}
	swaps := 0
	r, err := s.rebuild(func(c *RebuildConfig) {
		c.Enter = func(p Phase) {
			if p != PhaseSwap {
				return
			}
			if swaps++; swaps == 2 {
				if err := reader.Rollback(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	})
	if err != nil || !r.Swapped || r.Tries != 2 {
		t.Errorf("%+v: %v", r, err)
	}
}

// The projector stands far behind, a key is blocked, and the outbox has dropped what
// it held: the rows come from the write model, further than the projector, and each
// event that comes later still writes its line. A person may have the key applied
// after the swap, or to the old tables while the new ones are filled.
func TestARebuildAheadOfTheProjectorLosesNoLine(t *testing.T) {
	for name, during := range map[string]Phase{"replayed afterwards": PhaseDone, "replayed meanwhile": PhaseCompare} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, false)
			stop := s.project()
			s.seeded(4)
			var poisoned string
			if err := s.write.QueryRow(t.Context(), `SELECT order_id FROM payments WHERE status = 'succeeded' LIMIT 1`).Scan(&poisoned); err != nil {
				t.Fatal(err)
			}
			s.publish(inbox.Message{Key: []byte(poisoned), Value: []byte("{}"), Headers: map[string]string{inbox.HeaderID: "evt_01m8714zasejprk4n4a49y2r89"}})
			awaits(t, "blocked keys", s.read, `SELECT 1 - count(*) FROM inbox_parked_keys`)
			s.refund() // its events wait behind the poison
			s.rests()
			awaits(t, "spilled events", s.read, `SELECT 3 - count(*) FROM inbox_parked`)
			stop()
			s.posts(4) // and these are not consumed
			s.rests()
			awaits(t, "events to be published", s.write, `SELECT $1 - (SELECT count(*) FROM outbox)::bigint`, s.published())
			if _, err := s.writeOwner.Exec(t.Context(), `TRUNCATE outbox`); err != nil {
				t.Fatal(err)
			}
			r, err := s.rebuild(func(c *RebuildConfig) {
				c.Enter = func(p Phase) {
					if p == during {
						s.release(poisoned)
					}
				}
			})
			if err != nil || !r.Swapped || r.Different != 0 || r.Lines != 0 || r.Kept == 0 || r.Behind == 0 {
				t.Fatalf("%+v: %v", r, err)
			}
			s.settles() // the rows are there, without any projector
			s.project()
			awaits(t, "lines", s.read, `
				SELECT (SELECT sum(sequence)::bigint FROM payment_view) - (SELECT count(*) FROM payment_timeline)`)
			if again, err := s.rebuild(); err != nil || again.Different != 0 || again.Behind != 0 {
				t.Errorf("a second time: %+v: %v", again, err)
			}
		})
	}
}

// release discards the poison and has the two events behind it applied.
func (s *shop) release(orderID string) {
	s.t.Helper()
	letters := inbox.NewDeadLetters(s.read, s.projector())
	page, err := letters.List(s.t.Context(), inbox.BlockedFilter{Consumer: "payment_view"})
	if err != nil || len(page.Keys) != 1 || string(page.Keys[0].Key) != orderID || page.Keys[0].Messages != 3 {
		s.t.Fatalf("dead letters: %+v %v", page, err)
	}
	_, waiting, err := letters.Show(s.t.Context(), page.Keys[0].ID, 1)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := letters.Discard(s.t.Context(), page.Keys[0].ID, inbox.By{Operator: "key", Holder: "ada", Reason: "no event"}, &waiting[0].Offset); err != nil {
		s.t.Fatal(err)
	}
	if replayed, err := letters.Replay(s.t.Context(), page.Keys[0].ID); err != nil || !replayed.Released || replayed.Applied != 2 {
		s.t.Fatalf("replay: %+v %v", replayed, err)
	}
}

// published is how many events the log holds, without the test's own.
func (s *shop) published() (n int64) {
	s.t.Helper()
	var total int64
	if err := s.write.QueryRow(s.t.Context(), `SELECT sum(sequence)::bigint FROM orders`).Scan(&total); err != nil {
		s.t.Fatal(err)
	}
	for n < total {
		spans, err := s.client.Spans(s.t.Context(), payment.Topic)
		if err != nil {
			s.t.Fatal(err)
		}
		n = -1
		for _, span := range spans {
			n += span[1] - span[0]
		}
	}
	return n
}

func TestARebuildRefusesWhatASwapWouldLose(t *testing.T) {
	s := newShop(t, false)
	if _, err := s.owner.Exec(t.Context(), `CREATE VIEW seen AS SELECT payment_id FROM payment_view`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.rebuild(); err == nil || !strings.Contains(err.Error(), "seen") {
		t.Errorf("%v", err)
	}
	if left := s.leftovers(); left != 0 {
		t.Errorf("%d leftovers", left)
	}
}

// A migration adds a column; the same command goes over to the new table, whoever
// still runs the old program.
func TestARebuildCarriesAChangedSchemaOver(t *testing.T) {
	s := newShop(t, false)
	s.project()
	s.seeded(8)
	for i, sql := range []string{
		`ALTER TABLE payment_view ADD COLUMN channel text NOT NULL DEFAULT 'web'`,
		`CREATE INDEX payment_view_channel ON payment_view (merchant_id, channel, payment_id)`,
		`ALTER TABLE payment_view DROP COLUMN channel`,
	} {
		if _, err := s.owner.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		before := s.described()
		if r, err := s.rebuild(); err != nil || !r.Swapped || r.Different != 0 {
			t.Fatalf("%s: %+v: %v", sql, r, err)
		}
		same(t, "tables after change "+strconv.Itoa(i), s.described(), before)
		s.posts(1)
		s.settles()
	}
}
