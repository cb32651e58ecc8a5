package api

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/payment"
	"payments/internal/readmodel"
)

func after(token string) []string { return []string{"Read-After", token} }

// reading does the GET beside the test, which lets the projection come.
func (w *world) reading(path, key string, headers ...string) <-chan answer {
	got := make(chan answer, 1)
	go func() { got <- w.do("GET", path, key, "", headers...) }()
	return got
}

// asked waits until a session has asked the read model since.
func asked(t *testing.T, pool *pgxpool.Pool, since time.Time) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for n := 0; n == 0; {
		if err := pool.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%FROM payment_view%' AND query_start > $1`, since).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
}

func now(t *testing.T, pool *pgxpool.Pool) (at time.Time) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `SELECT clock_timestamp()`).Scan(&at); err != nil {
		t.Fatal(err)
	}
	return at
}

func TestAReadAfterAPostWaitsUntilItsEventIsProjected(t *testing.T) {
	w := newWorld(t)
	placed := w.post(w.merchant, good, key("k-1")...)
	id := placed.at(t, "id").(string)
	token := placed.header.Get("Read-After")
	at, err := readmodel.ParseToken(token)
	if want := (readmodel.Position{MerchantID: w.merchantID, PaymentID: id, Sequence: 1}); err != nil || at != want {
		t.Fatalf("token %q is of %+v (%v), want %+v", token, at, err, want)
	}
	// A list has no wait of its own: without the token it is empty.
	if a := w.do("GET", "/v1/payments", w.merchant, ""); strings.Contains(a.body, id) {
		t.Fatalf("projected already: %s", a.body)
	}
	since := now(t, w.pool)
	list := w.reading("/v1/payments", w.merchant, after(token)...)
	asked(t, w.pool, since)
	w.project()
	if a := <-list; a.status != 200 || a.at(t, "data.0.id") != id {
		t.Errorf("list: %d %s", a.status, a.body)
	}

	w.make(id, payment.StatusSucceeded)
	path := "/v1/payments/" + id
	refund := w.do("POST", path+"/refunds", w.merchant, `{"amount": 1000}`, key("r-1")...)
	second := refund.header.Get("Read-After")
	if at, err := readmodel.ParseToken(second); err != nil || at.Sequence != 2 || at.PaymentID != id {
		t.Fatalf("refund's token is of %+v (%v)", at, err)
	}
	since = now(t, w.pool)
	reads := map[string]<-chan answer{}
	for _, p := range []string{path, path + "/timeline", path + "/refunds"} {
		reads[p] = w.reading(p, w.merchant, after(second)...)
	}
	asked(t, w.pool, since)
	w.project()
	for p, got := range reads {
		if a := <-got; a.status != 200 || p != path && !strings.Contains(a.body, "refund") {
			t.Errorf("%s: %d %s", p, a.status, a.body)
		}
	}
	if a := w.do("GET", path+"/refunds", w.merchant, "", after(second)...); a.at(t, "data.0.created_at") != refund.at(t, "created_at") {
		t.Errorf("the refund is %s when asked for, and %s when read", refund.body, a.body)
	}

	// The first answer's token is what a replay says, however far the payment is by now.
	again := w.post(w.merchant, good, key("k-1")...)
	if again.header.Get("Read-After") != token || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("replay: %v", again.header)
	}
}

func TestACancellationAnswersWithItsPosition(t *testing.T) {
	w := newWorld(t)
	id := w.placed("A-1", "")
	w.project()
	a := w.do("POST", "/v1/payments/"+id+"/cancel", w.merchant, "")
	if at, err := readmodel.ParseToken(a.header.Get("Read-After")); a.status != 202 || err != nil || at.PaymentID != id || at.Sequence != 1 {
		t.Errorf("cancel: %d %v %+v %v", a.status, a.header, at, err)
	}
}

func TestWhatCannotBeReadAfter(t *testing.T) {
	w := newWorld(t)
	placed := w.post(w.merchant, good, key("k-1")...)
	path, token := placed.header.Get("Location"), placed.header.Get("Read-After")
	for name, bad := range map[string]string{
		"nonsense": "s3cret", "padded": token + "=", "empty": " ", "cut": token[:20],
		"no sequence": readmodel.Position{MerchantID: w.merchantID, PaymentID: placed.at(t, "id").(string)}.Token(),
		"no payment":  readmodel.Position{MerchantID: w.merchantID, PaymentID: "s3cret", Sequence: 1}.Token(),
	} {
		a := w.do("GET", path, w.merchant, "", after(bad)...)
		if w.refused(name, a, 400, payment.CodeReadAfterInvalid); strings.Contains(a.body, "s3cret") {
			t.Errorf("%s: %s", name, a.body)
		}
	}
	// Another merchant's token is ignored: the list is answered before any projection could be.
	foreign := w.do("GET", "/v1/payments", w.other, "", after(token)...)
	if foreign.status != 200 || foreign.body != w.do("GET", "/v1/payments", w.other, "").body {
		t.Errorf("another merchant's: %d %s", foreign.status, foreign.body)
	}
	// What never comes is refused for now.
	w.project()
	never := readmodel.Position{MerchantID: w.merchantID, PaymentID: placed.at(t, "id").(string), Sequence: 99}.Token()
	a := w.do("GET", path, w.merchant, "", after(never)...)
	if w.refused("too far", a, 503, payment.CodeReadAfterTimeout); a.header.Get("Retry-After") != "1" {
		t.Errorf("headers %v", a.header)
	}
	// Other routes leave it alone.
	if a := w.do("GET", "/v1/stock", w.merchant, "", after("s3cret")...); a.status != 200 {
		t.Errorf("stock: %d %s", a.status, a.body)
	}
}
