package readmodel

import (
	"testing"

	"payments/internal/inbox"
)

// While a rebuild fills its tables, a poison message blocks an order's key for the
// projector and for the rebuild's own consumer alike, so that both rows stand still and
// are alike when they are compared. Then, before the swap, a person has the key applied
// to the live tables: the swap must not put the older row in the newer one's place.
func TestASwapTakesNothingBackThatAReplayHasAppliedMeanwhile(t *testing.T) {
	s := newShop(t, false)
	s.project()
	s.seeded(4)
	var poisoned string
	if err := s.write.QueryRow(t.Context(), `SELECT order_id FROM payments WHERE status = 'succeeded' LIMIT 1`).Scan(&poisoned); err != nil {
		t.Fatal(err)
	}
	held := false
	sequence := func() (n int) {
		if err := s.read.QueryRow(t.Context(), `SELECT sequence FROM payment_view WHERE order_id = $1`, poisoned).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := 0
	r, err := s.rebuild(func(c *RebuildConfig) {
		c.Enter = func(p Phase) {
			switch {
			case p == PhaseIndex: // the snapshot is taken
				s.publish(inbox.Message{Key: []byte(poisoned), Value: []byte("{}"), Headers: map[string]string{inbox.HeaderID: "evt_01m8714zasejprk4n4a49y2r89"}})
				awaits(t, "blocked keys", s.read, `SELECT 1 - count(*) FROM inbox_parked_keys WHERE consumer = 'payment_view'`)
				s.refund()
				s.rests()
				awaits(t, "spilled events", s.read, `
					SELECT 3 - count(*) FROM inbox_parked p JOIN inbox_parked_keys k ON k.id = p.parked_key WHERE k.consumer = 'payment_view'`)
			case p == PhaseHold && !held:
				held = true
				s.release(poisoned)
				before = sequence()
			}
		}
	})
	t.Logf("%+v: %v", r, err)
	if err != nil && !r.Swapped {
		return // refused: nothing is lost
	}
	if after := sequence(); after != before {
		t.Errorf("the row was at %d before the swap and is at %d after it", before, after)
	}
	s.refund() // the order's next event
	s.rests()
	awaits(t, "events", s.read, `SELECT CASE WHEN EXISTS (SELECT FROM inbox_parked) OR
		(SELECT sum(sequence) FROM payment_view) = (SELECT sum(sequence) FROM orders) THEN 0 ELSE 1 END`)
	same(t, "dead letters", (&world{t: t, pool: s.read}).deadLetters(), []string{})
}
