package test

import (
	"bytes"
	"net/http"
	"slices"
	"sync"
	"testing"

	"payments/client"
)

func TestAHundredClientsPostOneKeyAtOnce(t *testing.T) {
	t.Parallel()
	const crowd = 100
	w := newWorld(t, parts{})
	both := []*service{w.serve(nil), w.serve(nil)}
	body := order("A-1", "pm_card_visa")
	var (
		wg      sync.WaitGroup
		begin   = make(chan struct{})
		answers = make([]answer, crowd)
		inUse   = make([]int, crowd)
	)
	for c := range crowd {
		wg.Go(func() {
			<-begin
			for {
				a, err := w.post(both[c%2], "one", body, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if a.status == http.StatusConflict && decode[client.Problem](t, a).Code == client.ProblemCodeIdempotencyKeyInUse {
					if inUse[c]++; a.header.Get("Retry-After") == "" {
						t.Error("a 409 does not say when to repeat the request")
					}
					continue
				}
				if a.status == http.StatusServiceUnavailable { // a busy machine: nothing was done
					continue
				}
				answers[c] = a
				return
			}
		})
	}
	close(begin)
	wg.Wait()
	fresh := 0
	for c, a := range answers {
		if a.status != http.StatusAccepted || !bytes.Equal(a.body, answers[0].body) {
			t.Errorf("client %d was answered %d %s and client 0 %s", c, a.status, a.body, answers[0].body)
		}
		if a.header.Get("Idempotent-Replayed") == "" {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d answers are not marked as replayed, want 1", fresh)
	}
	told := 0
	for _, n := range inUse {
		told += n
	}
	t.Logf("the key was told to be in use %d times", told)
	w.audited()
	for _, table := range []string{"payments", "orders", "sagas", "idempotency_keys"} {
		if n := w.count("SELECT count(*) FROM " + table); n != 1 {
			t.Errorf("%d rows in %s, want 1", n, table)
		}
	}
	id := decode[client.Payment](t, answers[0]).ID
	if got, want := w.ledger(id), []string{"authorization succeeded", "capture succeeded"}; !slices.Equal(got, want) {
		t.Errorf("the bank's ledger has %v, want %v", got, want)
	}
	if all := w.operations(""); len(all) != 2 {
		t.Errorf("the bank's ledger has %v", all)
	}
}
