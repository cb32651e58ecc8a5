package idempotency

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

func open(t *testing.T) (*pgxpool.Pool, string) {
	t.Helper()
	db := devtest.Database(t)
	pool, err := postgres.Open(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool, db.OwnerURL
}

func request(merchant, key, body string) Request {
	f, err := Fingerprint("POST", "/v1/payments", []byte(body))
	if err != nil {
		panic(err)
	}
	return Request{merchant, key, f}
}

var answer = Response{
	ResourceID: "pay_1", Status: 202, Header: map[string]string{"Location": "/v1/payments/pay_1"}, Body: []byte(`{"id": "pay_1"}` + "\n"),
}

// serve does what a handler does; work runs while the key is owned.
func serve(t *testing.T, pool *pgxpool.Pool, r Request, resp Response, work func()) (replay *Response, err error) {
	t.Helper()
	err = postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		given, replayed, err := Once(t.Context(), tx, r, func() (struct{}, error) {
			work()
			return struct{}{}, nil
		}, func(struct{}) (Response, error) { return resp, nil })
		if replayed {
			replay = &given
		}
		return err
	})
	return replay, err
}

func TestOnceKeepsNothingOfWhatFailed(t *testing.T) {
	pool, _ := open(t)
	r := request("mer_1", "one", `{"a":1}`)
	broken := errors.New("broken")
	for name, fails := range map[string]struct{ do, render error }{"the work": {do: broken}, "its answer": {render: broken}} {
		err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			_, _, err := Once(t.Context(), tx, r, func() (int, error) { return 1, fails.do },
				func(int) (Response, error) { return answer, fails.render })
			return err
		})
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if replay, err := serve(t, pool, r, answer, func() {}); replay != nil || err != nil {
		t.Errorf("the key is not free: %v, %v", replay, err)
	}
}

func TestFiftyAtOnce(t *testing.T) {
	pool, _ := open(t)
	r := request("mer_1", "one", `{"a":1}`)
	const clients = 50
	var worked, inUse, replayed atomic.Int64
	var others, first sync.WaitGroup
	others.Add(clients - 1)
	owned := make(chan struct{})
	first.Go(func() {
		replay, err := serve(t, pool, r, answer, func() {
			worked.Add(1)
			close(owned)
			others.Wait() // every other one asks while this one is not committed
		})
		if replay != nil || err != nil {
			t.Errorf("the first got %v, %v", replay, err)
		}
	})
	<-owned
	for range clients - 1 {
		go func() {
			defer others.Done()
			if _, err := serve(t, pool, r, answer, func() { worked.Add(1) }); errors.Is(err, ErrInUse) {
				inUse.Add(1)
			} else {
				t.Errorf("beside the first: %v", err)
			}
		}()
	}
	first.Wait()
	if worked.Load() != 1 || inUse.Load() != clients-1 {
		t.Fatalf("%d did the work, %d were told to wait", worked.Load(), inUse.Load())
	}
	var after sync.WaitGroup
	for range clients {
		after.Go(func() {
			replay, err := serve(t, pool, r, answer, func() { worked.Add(1) })
			if err != nil || replay == nil || !reflect.DeepEqual(*replay, answer) {
				t.Errorf("a replay got %+v, %v", replay, err)
				return
			}
			replayed.Add(1)
		})
	}
	after.Wait()
	if worked.Load() != 1 || replayed.Load() != clients {
		t.Fatalf("%d did the work, %d were answered again", worked.Load(), replayed.Load())
	}
}

// No barrier: whoever is told to wait asks again until it is answered.
func TestARaceHasOneWinner(t *testing.T) {
	pool, _ := open(t)
	for round := range 10 {
		r := request("mer_1", fmt.Sprint("race-", round), `{}`)
		var worked atomic.Int64
		var clients sync.WaitGroup
		for range 20 {
			clients.Go(func() {
				for {
					_, err := serve(t, pool, r, answer, func() { worked.Add(1) })
					if err == nil {
						return
					}
					if !errors.Is(err, ErrInUse) {
						t.Error(err)
						return
					}
				}
			})
		}
		clients.Wait()
		if worked.Load() != 1 {
			t.Fatalf("round %d: %d did the work", round, worked.Load())
		}
	}
}

// A replay that is still being sent does not hold up the next one.
func TestReplaysDoNotWaitForEachOther(t *testing.T) {
	pool, _ := open(t)
	r := request("mer_1", "one", `{}`)
	if _, err := serve(t, pool, r, answer, func() {}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tx.Rollback(context.WithoutCancel(t.Context())) })
		if replay, err := Begin(t.Context(), tx, r); err != nil || replay == nil {
			t.Fatalf("got %v, %v", replay, err)
		}
	}
}

func TestAnotherRequestUnderTheKey(t *testing.T) {
	pool, _ := open(t)
	if _, err := serve(t, pool, request("mer_1", "one", `{"a":1}`), answer, func() {}); err != nil {
		t.Fatal(err)
	}
	_, err := serve(t, pool, request("mer_1", "one", `{"a":2}`), answer, func() { t.Error("the work was done again") })
	if !errors.Is(err, ErrReused) {
		t.Errorf("got %v", err)
	}
}

func TestMerchantsDoNotMeet(t *testing.T) {
	pool, _ := open(t)
	other := Response{ResourceID: "pay_2", Status: 202, Header: map[string]string{}, Body: []byte(`{"id": "pay_2"}`)}
	// The second pair would be one key if nothing stood between merchant and key.
	for _, pair := range [][2]Request{
		{request("mer_1", "one", `{"a":1}`), request("mer_2", "one", `{"a":2}`)},
		{request("mer_1", "2three", `{}`), request("mer_12", "three", `{}`)},
	} {
		_, err := serve(t, pool, pair[0], answer, func() {
			if replay, err := serve(t, pool, pair[1], other, func() {}); replay != nil || err != nil {
				t.Errorf("beside the first: %v, %v", replay, err)
			}
		})
		if err != nil {
			t.Error(err)
		}
		for i, want := range []Response{answer, other} {
			replay, err := serve(t, pool, pair[i], answer, func() {})
			if err != nil || replay == nil || !reflect.DeepEqual(*replay, want) {
				t.Errorf("%s got %+v, %v", pair[i].MerchantID, replay, err)
			}
		}
	}
}

func TestADeadTransactionFreesTheKey(t *testing.T) {
	pool, ownerURL := open(t)
	r := request("mer_1", "one", `{}`)
	victim, err := pgx.Connect(t.Context(), ownerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer victim.Close(t.Context())
	tx, err := victim.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if replay, err := Begin(t.Context(), tx, r); replay != nil || err != nil {
		t.Fatalf("got %v, %v", replay, err)
	}
	if err := Store(t.Context(), tx, r, answer); err != nil {
		t.Fatal(err)
	}
	if _, err := serve(t, pool, r, answer, func() {}); !errors.Is(err, ErrInUse) {
		t.Fatalf("beside the victim: %v", err)
	}

	killer, err := pgx.Connect(t.Context(), ownerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer killer.Close(t.Context())
	if _, err := killer.Exec(t.Context(), `SELECT pg_terminate_backend($1)`, int32(victim.PgConn().PID())); err != nil {
		t.Fatal(err)
	}
	worked := 0
	for deadline := time.Now().Add(10 * time.Second); ; {
		replay, err := serve(t, pool, r, answer, func() { worked++ })
		if err == nil && replay == nil {
			break
		}
		if !errors.Is(err, ErrInUse) || time.Now().After(deadline) {
			t.Fatalf("after the victim's death: %v, %v", replay, err)
		}
	}
	if worked != 1 {
		t.Errorf("the work was done %d times", worked)
	}
}

// The session lives on: what ends is the transaction.
func TestARollbackFreesTheKey(t *testing.T) {
	pool, ownerURL := open(t)
	r := request("mer_1", "one", `{}`)
	session, err := pgx.Connect(t.Context(), ownerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close(t.Context())
	tx, err := session.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if replay, err := Begin(t.Context(), tx, r); replay != nil || err != nil {
		t.Fatalf("got %v, %v", replay, err)
	}
	if err := Store(t.Context(), tx, r, answer); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if replay, err := serve(t, pool, r, answer, func() {}); replay != nil || err != nil {
		t.Errorf("got %v, %v", replay, err)
	}
}

// The row's key holds even where the lock was not taken.
func TestStoreTwice(t *testing.T) {
	pool, _ := open(t)
	r := request("mer_1", "one", `{}`)
	store := func() error {
		return postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error { return Store(t.Context(), tx, r, answer) })
	}
	if err := store(); err != nil {
		t.Fatal(err)
	}
	if err := store(); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
}

func TestAnAnswerWithoutHeaderAndBody(t *testing.T) {
	pool, _ := open(t)
	r := request("mer_1", `a"b\c~!`, ``)
	if _, err := serve(t, pool, r, Response{ResourceID: "pay_1", Status: 204}, func() {}); err != nil {
		t.Fatal(err)
	}
	replay, err := serve(t, pool, r, answer, func() {})
	if err != nil || replay == nil || replay.Status != 204 || len(replay.Header) != 0 || len(replay.Body) != 0 {
		t.Errorf("got %+v, %v", replay, err)
	}
}

func TestARefusalIsNotKept(t *testing.T) {
	pool, _ := open(t)
	if _, err := serve(t, pool, request("mer_1", "one", `{}`), Response{ResourceID: "pay_1", Status: 422}, func() {}); err == nil {
		t.Error("a 422 was stored")
	}
}
