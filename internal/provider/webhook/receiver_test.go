package webhook_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"payments/internal/devstack/devtest"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
	"payments/internal/provider/stripe"
	"payments/internal/provider/webhook"
)

func TestMain(m *testing.M) { devtest.Main(m, devtest.WithMigrations(postgres.Migrate)) }

const secret = "whsec_of-the-test"

func notification(id string) (http.Header, []byte) {
	return signed("Provider-Signature", fmt.Sprintf(`{"id":%q,"type":"operation.succeeded","data":{"reference":"pay_1"}}`, id))
}

func signed(header, body string) (http.Header, []byte) {
	mac := hmac.New(sha256.New, []byte(secret))
	t := time.Now().Unix()
	fmt.Fprintf(mac, "%d.%s", t, body)
	return http.Header{header: {fmt.Sprintf("t=%d,v1=%s", t, hex.EncodeToString(mac.Sum(nil)))}}, []byte(body)
}

// newReceiver makes each notification a row of a table, and then may fail.
func newReceiver(t *testing.T, fail func() error) (*webhook.Receiver, *pgxpool.Pool, *prometheus.Registry) {
	t.Helper()
	pool, err := postgres.Open(t.Context(), devtest.Database(t).OwnerURL) // who may make a table
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := pool.Exec(t.Context(), `CREATE TABLE effects (id text, reference text)`); err != nil {
		t.Fatal(err)
	}
	reader, err := provider.SimulatorWebhooks([]string{secret}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	r, err := webhook.NewReceiver(pool, webhook.Handler{Handle: func(ctx context.Context, tx pgx.Tx, n provider.Notification) error {
		if _, err := tx.Exec(ctx, `INSERT INTO effects VALUES ($1, $2)`, n.ID, n.Reference); err != nil {
			return err
		}
		return fail()
	}}, reg, reader)
	if err != nil {
		t.Fatal(err)
	}
	return r, pool, reg
}

func effects(t *testing.T, pool *pgxpool.Pool) (n int) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM effects`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestANotificationHasItsEffectOnce(t *testing.T) {
	r, pool, reg := newReceiver(t, func() error { return nil })
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			h, body := notification("evt_1")
			if err := r.Receive(t.Context(), "simulator", h, body); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := effects(t, pool); n != 1 {
		t.Errorf("%d effects of one notification", n)
	}
	h, body := notification("evt_2")
	if err := r.Receive(t.Context(), "simulator", h, body); err != nil {
		t.Fatal(err)
	}
	if n := effects(t, pool); n != 2 {
		t.Errorf("%d effects of two notifications", n)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP payments_provider_notifications_total Notifications from a provider, by what became of them.
# TYPE payments_provider_notifications_total counter
payments_provider_notifications_total{provider="simulator",result="duplicate"} 19
payments_provider_notifications_total{provider="simulator",result="no_effect"} 0
payments_provider_notifications_total{provider="simulator",result="taken"} 2
payments_provider_notifications_total{provider="simulator",result="unreadable"} 0
payments_provider_notifications_total{provider="simulator",result="unsigned"} 0
`)); err != nil {
		t.Error(err)
	}
}

// An id of Stripe's tells no day. Were it kept for good, the table would grow for good.
func TestAnEventOfStripesIsKeptByItsDay(t *testing.T) {
	pool, err := postgres.Open(t.Context(), devtest.Database(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	reader, err := stripe.Webhooks([]string{secret}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	r, err := webhook.NewReceiver(pool, webhook.Handler{Handle: func(context.Context, pgx.Tx, provider.Notification) error { count++; return nil }}, prometheus.NewRegistry(), reader)
	if err != nil {
		t.Fatal(err)
	}
	made := time.Date(2026, 11, 29, 23, 59, 59, 0, time.UTC)
	for _, body := range []string{
		fmt.Sprintf(`{"id":"evt_1","created":%d,"type":"charge.succeeded"}`, made.Unix()),
		fmt.Sprintf(`{"id":"evt_1","created":%d,"type":"charge.succeeded"}`, made.Unix()),
		`{"id":"evt_2","type":"charge.succeeded"}`,
		fmt.Sprintf(`{"id":"evt_3","created":%d,"type":"charge.succeeded"}`, int64(math.MaxInt64)),
		`{"id":"evt_4","created":-1,"type":"charge.succeeded"}`,
		`{"id":"evt_5","created":"2026-11-29T23:59:59.123-01:00","type":"v2.core.account.updated"}`,
		`{"id":"evt_6","created":"soon","type":"charge.succeeded"}`,
		`{"id":"evt_7","created":{},"type":"charge.succeeded"}`,
		`{"id":"evt_8","created":null,"type":"charge.succeeded"}`,
	} {
		h, b := signed("Stripe-Signature", body)
		if err := r.Receive(t.Context(), "stripe", h, b); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
	}
	rows, err := pool.Query(t.Context(), `SELECT message_id || ' ' || to_char(made_on, 'YYYY-MM-DD') FROM inbox_messages ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	const never = " 0001-01-01"
	if want := []string{"evt_1 2026-11-29", "evt_2" + never, "evt_3" + never, "evt_4" + never, "evt_5 2026-11-30", "evt_6" + never, "evt_7" + never, "evt_8" + never}; count != 8 || !slices.Equal(kept, want) {
		t.Errorf("%d effects, kept %q, want %q", count, kept, want)
	}
}

func TestAFailedEffectIsNotRemembered(t *testing.T) {
	failure := errors.New("no")
	r, pool, _ := newReceiver(t, func() error { return failure })
	h, body := notification("evt_1")
	if err := r.Receive(t.Context(), "simulator", h, body); !errors.Is(err, failure) {
		t.Fatal(err)
	}
	if n := effects(t, pool); n != 0 {
		t.Errorf("%d effects", n)
	}
	failure = nil
	if err := r.Receive(t.Context(), "simulator", h, body); err != nil {
		t.Fatal(err)
	}
	if n := effects(t, pool); n != 1 {
		t.Errorf("%d effects after the redelivery", n)
	}
}

func TestRefusals(t *testing.T) {
	r, pool, _ := newReceiver(t, func() error { return nil })
	h, body := notification("evt_1")
	unreadable, empty := notification("")
	for name, tc := range map[string]struct {
		provider string
		header   http.Header
		body     []byte
		want     payment.Code
	}{
		"unknown provider": {"stripe", h, body, payment.CodeNotFound},
		"unsigned":         {"simulator", http.Header{}, body, payment.CodeSignatureInvalid},
		"changed":          {"simulator", h, append([]byte(" "), body...), payment.CodeSignatureInvalid},
		"unreadable":       {"simulator", unreadable, empty, payment.CodeInvalid},
	} {
		err := r.Receive(t.Context(), tc.provider, tc.header, tc.body)
		if refusal, ok := errors.AsType[*payment.Error](err); !ok || refusal.Code != tc.want {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
	var n int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM inbox_messages`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d notifications remembered, %v", n, err)
	}
}

// What a provider signs may still be bytes that no column holds.
func TestANotificationWithBytesThatCannotBeKeptIsRefusedOrTaken(t *testing.T) {
	database := devtest.Database(t)
	pool, err := postgres.Open(t.Context(), database.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	reader, err := provider.SimulatorWebhooks([]string{secret}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	var taken []provider.Notification
	r, err := webhook.NewReceiver(pool, webhook.Handler{Handle: func(_ context.Context, _ pgx.Tx, n provider.Notification) error {
		taken = append(taken, n)
		return nil
	}}, prometheus.NewRegistry(), reader)
	if err != nil {
		t.Fatal(err)
	}
	body := func(id, reference, key, operation, kind string) string {
		return `{"id":"` + id + `","type":"` + kind + `","data":{"id":"` + operation + `","reference":"` + reference + `","idempotency_key":"` + key + `"}}`
	}
	for name, id := range map[string]string{
		"NUL": `evt_\u0000`, "a line feed": `evt_\n`, "no UTF-8": "evt_\xff", "half a surrogate pair": `evt_\ud800`, "too long": strings.Repeat("x", 256), "none": "",
	} {
		h, b := signed("Provider-Signature", body(id, "pay_1", "", "", "operation.succeeded"))
		var refused *payment.Error
		if err := r.Receive(t.Context(), "simulator", h, b); !errors.As(err, &refused) || refused.Code != payment.CodeInvalid {
			t.Errorf("an id with %s: %v", name, err)
		}
	}
	h, b := signed("Provider-Signature", body("evt_1", `pay_\u0000`, strings.Repeat("k", 300), `op_\u0001`, `kind\u0000`))
	if err := r.Receive(t.Context(), "simulator", h, b); err != nil {
		t.Fatal(err)
	}
	if len(taken) != 1 || taken[0].Reference != "" || taken[0].Key != "" || taken[0].OperationID != "" || taken[0].Type != "kind\ufffd" {
		t.Errorf("taken: %+v", taken)
	}
}
