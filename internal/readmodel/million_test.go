package readmodel

import (
	"flag"
	"testing"
	"time"

	"payments/internal/order"
	"payments/internal/secret/secrettest"
	"payments/internal/seed"
)

var rebuildPayments = flag.Int("rebuild-payments", 0, "how many payments TestRebuildOfAMillion makes; 0 skips it")

// TestRebuildOfAMillion measures a rebuild beside posts, queries and the projector:
//
//	go test ./internal/readmodel -run TestRebuildOfAMillion -v -timeout 60m -rebuild-payments=1000000
//
// The payments are those of `payments seed`, with a timeline that the outbox has
// dropped, as after its retention. The numbers that it came to are in docs/read-model.md.
func TestRebuildOfAMillion(t *testing.T) {
	if *rebuildPayments == 0 {
		t.Skip("-rebuild-payments is 0")
	}
	s := newShop(t, false)
	step := time.Now()
	lap := func(what string) {
		t.Logf("%-40s %7.1f s", what, time.Since(step).Seconds())
		step = time.Now()
	}
	end := time.Now().AddDate(0, 0, -32)
	if err := seed.Run(t.Context(), seed.Config{
		Write: s.writeOwner, Read: s.owner, Payments: *rebuildPayments, Merchants: 50, Timelines: *rebuildPayments,
		Begin: end.AddDate(-1, 0, 0), End: end, Seed: 1, Methods: order.PaymentMethods(secrettest.Keys(t)),
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.owner.Exec(t.Context(), `TRUNCATE payment_view, refund_view, payment_term`); err != nil {
		t.Fatal(err)
	}
	lap("payments made")
	s.project()
	show := func(what string, r Rebuilt) {
		t.Logf("%s: %+v", what, r)
		lap(what)
	}
	r, err := s.rebuild()
	if err != nil || !r.Swapped || r.Payments != int64(*rebuildPayments) {
		t.Fatalf("from nothing: %+v: %v", r, err)
	}
	show("rebuilt from nothing", r)
	stop := s.traffic()
	r, err = s.rebuild()
	posts, queries, slowest := stop()
	if err != nil || !r.Swapped || r.Different != 0 || r.Compared < int64(*rebuildPayments) || posts == 0 || queries == 0 {
		t.Fatalf("beside traffic: %+v: %v", r, err)
	}
	show("rebuilt beside traffic", r)
	t.Logf("%d posts and %d queries meanwhile, none failed: %t; the slowest page with its payments took %s", posts, queries, !t.Failed(), slowest)
	s.settles()
	if r, err = s.rebuild(); err != nil || r.Different != 0 || r.Behind != 0 {
		t.Fatalf("at rest: %+v: %v", r, err)
	}
	show("rebuilt at rest", r)
}
