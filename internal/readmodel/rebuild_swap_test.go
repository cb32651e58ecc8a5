package readmodel

import (
	"errors"
	"sync/atomic"
	"testing"

	"payments/internal/inbox"
)

// The rebuild's own consumer leaves an id for each event that it has applied: all of the
// log, when a read database is filled for the first time or was away for long. Readers
// must not wait for the deletion of these ids. It takes a lock here that the deletion
// waits for, while the readers' own tables are free.
func TestReadersDoNotWaitForTheRebuildsIdsToBeDeleted(t *testing.T) {
	s := newShop(t, false)
	s.project()
	s.seeded(12)
	var id string
	if err := s.read.QueryRow(t.Context(), `SELECT payment_id FROM payment_view LIMIT 1`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	conn, err := session(t.Context(), s.owner)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	deleting, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		r, err := s.rebuild(func(c *RebuildConfig) {
			c.Enter = func(p Phase) {
				if p != PhaseSwap {
					return
				}
				if _, err := s.owner.Exec(t.Context(), `INSERT INTO inbox_messages (consumer, made_on, message_id) VALUES ('payment_view_next', current_date, 'evt_x')`); err != nil {
					t.Error(err)
				}
				if _, err := deleting.Exec(t.Context(), `SELECT FROM inbox_messages WHERE consumer = 'payment_view_next' FOR UPDATE`); err != nil {
					t.Error(err)
				}
			}
		})
		if err == nil && !r.Swapped {
			err = errors.New("not swapped")
		}
		done <- err
	}()
	awaits(t, "the deletion of ids", s.owner, `
		SELECT CASE WHEN EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
			AND query LIKE 'DELETE FROM public.inbox_messages%') THEN 0 ELSE 1 END`)
	// A reader that queued for the tables would be an error after lock_timeout.
	if _, err := s.queries.Get(t.Context(), operator(t), id); err != nil {
		t.Errorf("a GET while the ids are deleted: %v", err)
	}
	awaits(t, "the new tables", s.owner, `SELECT count(*) FROM pg_namespace WHERE nspname = 'payment_view_next'`)
	if err := deleting.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if left := s.leftovers(); left != 0 {
		t.Errorf("%d leftovers", left)
	}
}

// A vacuum of payment_view is under way when the rebuild comes to its swap, and takes
// longer than all tries of the swap together. An autovacuum gives way to whoever has
// waited for deadlock_timeout (1 s); one that a person has begun does not.
func TestARebuildDoesNotGiveUpBehindAVacuum(t *testing.T) {
	s := newShop(t, false)
	s.project()
	s.seeded(12)
	// As large as it takes for a vacuum of some seconds: here it is made slow instead (as autovacuum_vacuum_cost_delay does).
	if _, err := s.owner.Exec(t.Context(), `
		INSERT INTO payment_view (merchant_id, payment_id, order_id, sequence, status, currency, amount, payment_method, customer_reference, order_reference, lines, created_at, updated_at)
		SELECT v.merchant_id, 'x' || n, 'x' || n, 1, v.status, v.currency, v.amount, v.payment_method, v.customer_reference, v.order_reference, v.lines, v.created_at, v.updated_at
		FROM generate_series(1, 20000) n, (SELECT * FROM payment_view LIMIT 1) v`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.owner.Exec(t.Context(), `DELETE FROM payment_view WHERE payment_id LIKE 'x%'`); err != nil {
		t.Fatal(err)
	}
	vacuum, err := session(t.Context(), s.owner)
	if err != nil {
		t.Fatal(err)
	}
	defer vacuum.Close(t.Context())
	if _, err := vacuum.Exec(t.Context(), `SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 20`); err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	var began atomic.Bool
	r, err := s.rebuild(func(c *RebuildConfig) {
		c.Enter = func(p Phase) {
			if p != PhaseHold || !began.CompareAndSwap(false, true) {
				return
			}
			go func() {
				_, err := vacuum.Exec(t.Context(), `VACUUM payment_view`)
				over <- err
			}()
			awaits(t, "the vacuum", s.owner, `
				SELECT CASE WHEN EXISTS (SELECT FROM pg_locks WHERE relation = 'public.payment_view'::regclass AND mode = 'ShareUpdateExclusiveLock' AND granted)
					THEN 0 ELSE 1 END`)
		}
	})
	if errors.Is(err, ErrNoHold) {
		t.Error("all of its work is thrown away")
	}
	if err != nil || !r.Swapped || r.Tries < 2 {
		t.Errorf("swapped %v after %d tries: %v", r.Swapped, r.Tries, err)
	}
	if err := <-over; err != nil {
		t.Errorf("the vacuum: %v", err)
	}
}

// A key has been blocked for longer than the outbox keeps (7 days and the rest of a
// partition); later events of it are still there. A rebuild, which the runbook advises,
// writes the later lines; the earlier ones come when a person replays the key.
func TestAPaymentsStreamSkipsNothingThatARebuildCouldNotTell(t *testing.T) {
	s := newShop(t, false)
	s.project()
	s.seeded(4)
	var key, payment string
	if err := s.write.QueryRow(t.Context(), `SELECT order_id, id FROM payments WHERE status = 'succeeded' LIMIT 1`).Scan(&key, &payment); err != nil {
		t.Fatal(err)
	}
	s.publish(inbox.Message{Key: []byte(key), Value: []byte("{}"), Headers: map[string]string{inbox.HeaderID: "evt_01m8714zasejprk4n4a49y2r89"}})
	awaits(t, "blocked keys", s.read, `SELECT 1 - count(*) FROM inbox_parked_keys`)
	var before int64
	if err := s.read.QueryRow(t.Context(), `SELECT max(sequence) FROM payment_timeline WHERE payment_id = $1`, payment).Scan(&before); err != nil {
		t.Fatal(err)
	}
	s.refund() // two more events
	s.rests()
	awaits(t, "spilled events", s.read, `SELECT 3 - count(*) FROM inbox_parked`)
	if _, err := s.writeOwner.Exec(t.Context(), `DELETE FROM outbox WHERE key = $1 AND sequence = $2`, key, before+1); err != nil { // its partition was dropped, the next was not
		t.Fatal(err)
	}
	if r, err := s.rebuild(func(c *RebuildConfig) { c.Accept = true }); err != nil || !r.Swapped {
		t.Fatal(r, err)
	}
	at, told := before, []int64{} // a client that follows the payment
	read := func() {
		events, err := s.queries.EventsOf(t.Context(), s.merchant, payment, FeedCursor{Position: at}, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			at, told = e.Position, append(told, e.Sequence)
		}
	}
	read()
	// A second rebuild finds nothing that differs.
	if r, err := s.rebuild(); err != nil || r.Different != 0 {
		t.Errorf("a second time: %+v: %v", r, err)
	}
	read()
	s.release(key) // a person discards the poison and replays the rest
	awaits(t, "dead letters", s.read, `SELECT count(*) FROM inbox_parked`)
	read()
	var lines int64
	if err := s.read.QueryRow(t.Context(), `SELECT count(*) FROM payment_timeline WHERE payment_id = $1`, payment).Scan(&lines); err != nil {
		t.Fatal(err)
	}
	t.Logf("the client stood at %d; the timeline has %d lines by now; it was told %v", before, lines, told)
	if len(told) != 2 {
		t.Errorf("\"what followed it, each event once and each payment's in order\" (docs/live-updates.md)")
	}
}
