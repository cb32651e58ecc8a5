package api

import (
	"context"
	"encoding/base64"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/access"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/readmodel"
	"payments/internal/webhook"
)

// planted is all that the other merchant has, and no answer may show.
const planted = `{"amount": 777, "currency": "EUR", "payment_method": "pm_card_visa",
 "customer": {"reference": "theirs-customer", "email": "theirs@example.com"},
 "order": {"reference": "theirs-order", "lines": [{"sku": "THEIRS-SKU", "quantity": 1, "unit_amount": 777}]}}`

// theirs are the words by which anything of the other merchant's is known.
type theirs struct {
	payment, order, refund, saga, keyID, cursor string
	endpoint, delivery, event, secret           string
	change                                      string // at the provider
	mine                                        string // an endpoint of the caller's
	words                                       []string
}

// plant gives the other merchant a payment, a refund, stock and keys, projected.
func (w *world) plant() theirs {
	w.t.Helper()
	// A read does not wait for ids of a minute ago to be projected.
	w.ids.Now = func() time.Time { return time.Now().Add(-time.Minute) }
	w.orders.Service = order.New(w.config(w.pool))
	a := w.do("POST", "/v1/payments", w.other, planted, key("theirs-key")...)
	if a.status != 202 {
		w.t.Fatalf("%d %s", a.status, a.body)
	}
	x := theirs{payment: a.at(w.t, "id").(string), order: a.at(w.t, "order.id").(string)}
	w.project()
	w.make(x.payment, payment.StatusSucceeded)
	r := w.do("POST", "/v1/payments/"+x.payment+"/refunds", w.other, `{"amount": 7, "reason": "theirs-reason"}`, key("theirs-refund")...)
	if r.status != 202 {
		w.t.Fatalf("%d %s", r.status, r.body)
	}
	x.refund = r.at(w.t, "id").(string)
	w.project()
	if a := w.do("PUT", "/v1/stock", w.operator, `{"merchant":"`+w.otherID+`","sku":"THEIRS-SKU","on_hand":7}`); a.status != 200 {
		w.t.Fatalf("%d %s", a.status, a.body)
	}
	for _, sku := range []string{"1", "2"} { // for a cursor
		body := strings.NewReplacer("theirs-order", "theirs-order-"+sku).Replace(planted)
		if a := w.do("POST", "/v1/payments", w.other, body, key("theirs-key-"+sku)...); a.status != 202 {
			w.t.Fatalf("%d %s", a.status, a.body)
		}
	}
	w.project()
	x.cursor = w.do("GET", "/v1/payments?limit=1", w.other, "").at(w.t, "next_cursor").(string)
	if err := w.pool.QueryRow(w.t.Context(), `
		SELECT s.id, k.id FROM sagas s, api_keys k WHERE s.merchant_id = $1 AND k.merchant_id = $1 LIMIT 1`, w.otherID).Scan(&x.saga, &x.keyID); err != nil {
		w.t.Fatal(err)
	}
	e := w.do("POST", "/v1/webhook_endpoints", w.other, `{"url":"https://theirs.example.com/theirs","events":["*"]}`, key("theirs-endpoint")...)
	if e.status != 201 {
		w.t.Fatalf("%d %s", e.status, e.body)
	}
	x.mine = w.newEndpoint(w.merchant, "mine").at(w.t, "id").(string)
	x.endpoint, x.secret, x.delivery = e.at(w.t, "id").(string), e.at(w.t, "secret").(string), w.ids.New(payment.PrefixDelivery)
	x.event = w.ids.New(payment.PrefixEvent)
	if _, err := w.pool.Exec(w.t.Context(), `
		WITH d AS (
			INSERT INTO webhook_deliveries (merchant_id, id, endpoint_id, event_id, event_type, payment_id, body, attempts, tries)
			VALUES ($1, $2, $3, $5, 'order.confirmed', $4, 'theirs', 1, 1) RETURNING merchant_id, id)
		INSERT INTO webhook_attempts (merchant_id, delivery_id, number, started_at, duration_ms, outcome, detail)
		SELECT merchant_id, id, 1, now(), 1, 'timeout', 'theirs' FROM d`, w.otherID, x.delivery, x.endpoint, x.payment, x.event); err != nil {
		w.t.Fatal(err)
	}
	x.change = w.ids.New(payment.PrefixChange)
	if _, err := w.pool.Exec(w.t.Context(), `
		INSERT INTO provider_changes (merchant_id, id, payment_id, kind, subject, amount, detail, state)
		VALUES ($1, $2, $3, 'refund_outside', 'theirs', 7, 'theirs', 'open')`, w.otherID, x.change, x.payment); err != nil {
		w.t.Fatal(err)
	}
	x.words = []string{x.change, x.payment, x.order, x.refund, x.saga, x.keyID, x.endpoint, x.delivery, x.event, x.secret, w.otherID, "theirs", "THEIRS"}
	return x
}

// paths are those of the route that name something of the other merchant's, and
// beside each the same of something that nobody has.
func (x theirs) paths(w *world, pattern string) [][2]string {
	none := map[string]string{
		x.payment: w.ids.New(payment.PrefixPayment), x.saga: w.ids.New(payment.PrefixSaga), x.keyID: w.ids.New(payment.PrefixKey),
		x.endpoint: w.ids.New(payment.PrefixEndpoint), x.change: w.ids.New(payment.PrefixChange), x.delivery: w.ids.New(payment.PrefixDelivery),
	}
	id := x.payment
	switch {
	case strings.Contains(pattern, "/sagas/"):
		id = x.saga
	case strings.Contains(pattern, "/keys/"):
		id = x.keyID
	case strings.Contains(pattern, "/webhook_endpoints/"):
		id = x.endpoint
	case strings.Contains(pattern, "/provider_changes/"):
		id = x.change
	}
	fill := func(id, delivery string) string {
		return strings.NewReplacer("{id}", id, "{delivery}", delivery, "{act}", "retry", "{provider}", "simulator").Replace(pattern)
	}
	if pattern == "/v1/events" { // its own would have no end; TestAnotherMerchantsEventsAreNotThere reads it
		return [][2]string{{pattern + "?merchant=" + w.otherID, pattern + "?merchant=" + w.ids.New(payment.PrefixMerchant)}}
	}
	pairs := [][2]string{{fill(id, x.delivery), fill(none[id], none[x.delivery])}}
	if strings.Contains(pattern, "{delivery}") { // of the caller's own endpoint
		pairs = append(pairs, [2]string{fill(x.mine, x.delivery), fill(x.mine, none[x.delivery])})
	}
	if pattern == "/v1/webhook_endpoints" || strings.HasSuffix(pattern, "/deliveries") {
		forged := x.endpoint
		if pattern != "/v1/webhook_endpoints" {
			forged = x.delivery
		}
		cursor := base64.RawURLEncoding.EncodeToString([]byte(forged))
		pairs = append(pairs, [2]string{fill(id, "") + "?cursor=" + cursor, fill(none[id], "") + "?cursor=" + cursor})
	}
	if pattern == "/v1/payments" {
		for name, v := range map[string][2]string{
			"customer": {"theirs-customer", "nobodys-customer"}, "order": {"theirs-order", "nobodys-order"}, "cursor": {x.cursor, x.cursor},
			"q": {"theirs", "nobodys"}, "merchant": {w.otherID, w.ids.New(payment.PrefixMerchant)}, "count=estimated&customer": {"theirs-customer", "nobodys-customer"},
		} {
			pairs = append(pairs, [2]string{"/v1/payments?" + name + "=" + v[0], "/v1/payments?" + name + "=" + v[1]})
		}
	}
	if pattern == "/v1/stock" {
		pairs = append(pairs, [2]string{"/v1/stock?merchant=" + w.otherID, "/v1/stock?merchant=" + w.ids.New(payment.PrefixMerchant)})
	}
	return pairs
}

// withoutChance leaves out what differs between any two answers.
func withoutChance(a answer) (int, string, http.Header) {
	h := maps.Clone(a.header)
	h.Del("Date")
	id := h.Get("Request-Id")
	h.Del("Request-Id")
	return a.status, strings.ReplaceAll(a.body, id, "·"), h
}

// Every route, for both roles of a merchant, asked for what is another merchant's:
// no byte of it is in any answer, and each answer is the one that there would be if
// it did not exist. Nothing of the other merchant's changes.
func TestNothingOfAnotherMerchant(t *testing.T) {
	w := newWorld(t)
	x := w.plant()
	w.walk(x)
}

// The same walk with the scope taken away from every read: row-level security alone.
func TestNothingOfAnotherMerchantWithoutAScope(t *testing.T) {
	w := newWorld(t)
	x := w.plant()
	everybody, err := authorizer(t).Authorize(t.Context(), access.Principal{KeyID: "key_1", Role: access.RoleOperator}, access.PaymentsRead)
	if err != nil {
		t.Fatal(err)
	}
	if page, err := readmodel.NewQueries(w.pool).List(t.Context(), everybody.Scope, readmodel.Filter{}); err != nil || len(page.Payments) != 3 {
		t.Fatalf("the scope is not taken away: %d, %v", len(page.Payments), err)
	}
	c := w.api
	c.Payments = unscoped{readmodel.NewQueries(w.pool), everybody.Scope}
	c.Webhooks = unscopedWebhooks{webhook.NewStore(w.pool, w.ids, w.cipher, webhook.Guard{}), everybody.Scope}
	c.Registerer = prometheus.NewRegistry()
	w.server = w.serve(c)
	w.walk(x)
}

// unscoped reads everybody's rows, whoever asks.
type unscoped struct {
	*readmodel.Queries
	everybody access.Scope
}

func (u unscoped) Get(ctx context.Context, _ access.Scope, id string) (readmodel.Payment, error) {
	return u.Queries.Get(ctx, u.everybody, id)
}

func (u unscoped) List(ctx context.Context, _ access.Scope, f readmodel.Filter) (readmodel.Page, error) {
	return u.Queries.List(ctx, u.everybody, f)
}

func (u unscoped) Timeline(ctx context.Context, _ access.Scope, id string, after int64, limit int) ([]readmodel.Entry, error) {
	return u.Queries.Timeline(ctx, u.everybody, id, after, limit)
}

func (u unscoped) Refunds(ctx context.Context, _ access.Scope, id, after string, limit int) ([]readmodel.Refund, error) {
	return u.Queries.Refunds(ctx, u.everybody, id, after, limit)
}

func (u unscoped) Count(ctx context.Context, _ access.Scope, f readmodel.Filter) (readmodel.Count, error) {
	return u.Queries.Count(ctx, u.everybody, f)
}

type unscopedWebhooks struct {
	*webhook.Store
	everybody access.Scope
}

func (u unscopedWebhooks) Get(ctx context.Context, _ access.Scope, id string) (webhook.Endpoint, error) {
	return u.Store.Get(ctx, u.everybody, id)
}

func (u unscopedWebhooks) List(ctx context.Context, _ access.Scope, after string, limit int) ([]webhook.Endpoint, bool, error) {
	return u.Store.List(ctx, u.everybody, after, limit)
}

func (u unscopedWebhooks) Deliveries(ctx context.Context, _ access.Scope, endpointID, after string, limit int) ([]webhook.Delivery, bool, error) {
	return u.Store.Deliveries(ctx, u.everybody, endpointID, after, limit)
}

func (w *world) walk(x theirs) {
	w.t.Helper()
	before := w.everythingOf(w.otherID)
	for _, rt := range (&server{}).routes() {
		if rt.public { // it holds nobody's data
			continue
		}
		for role, caller := range map[string]string{"merchant": w.merchant, "reader": w.reader, "nobody": ""} {
			for _, pair := range x.paths(w, rt.pattern) {
				for _, body := range []string{"", "{}", `{"amount": 7}`, `{"reason": "because"}`} {
					if rt.method == http.MethodGet && body != "" {
						continue
					}
					var answers [2]answer
					for i, path := range pair {
						// With the other merchant's idempotency key, which is another one here.
						answers[i] = w.do(rt.method, path, caller, body, "Idempotency-Key", "theirs-refund")
						for _, word := range x.words {
							// What the caller wrote itself comes back in no answer either.
							if strings.Contains(answers[i].body, word) || slices.ContainsFunc(slices.Collect(maps.Values(answers[i].header)),
								func(v []string) bool { return strings.Contains(strings.Join(v, " "), word) }) {
								w.t.Errorf("%s as %s shows %q: %s", rt.method+" "+path, role, word, answers[i].body)
							}
						}
					}
					s0, b0, h0 := withoutChance(answers[0])
					s1, b1, h1 := withoutChance(answers[1])
					if s0 != s1 || b0 != b1 || !maps.EqualFunc(h0, h1, slices.Equal[[]string]) {
						w.t.Errorf("%s as %s tells that it is there:\n%d %v %s\n%d %v %s", rt.method+" "+pair[0], role, s0, h0, b0, s1, h1, b1)
					}
				}
			}
		}
	}
	// A merchant may use the keys and references of another: they are its own.
	a := w.post(w.merchant, strings.ReplaceAll(planted, "theirs-customer", "mine"), key("theirs-key")...)
	if a.status != 202 || a.header.Get("Idempotent-Replayed") != "" || strings.Contains(a.body, x.payment) {
		w.t.Errorf("another merchant's key and reference: %d %v %s", a.status, a.header, a.body)
	}
	if after := w.everythingOf(w.otherID); after != before {
		w.t.Errorf("the other merchant's rows changed from\n%s\nto\n%s", before, after)
	}
}

// everythingOf is every tenant table's rows of the merchant, as text.
func (w *world) everythingOf(merchantID string) (all string) {
	w.t.Helper()
	for _, table := range []string{
		"orders", "order_lines", "payments", "refunds", "stock", "idempotency_keys", "sagas", "saga_attempts", "saga_actions", "outbox",
		"payment_view", "refund_view", "payment_timeline", "payment_term", "feed_heads", "feed_events", "api_keys",
		"webhook_endpoints", "webhook_secrets", "webhook_deliveries", "webhook_attempts", "webhook_missed",
	} {
		var rows string
		if err := w.pool.QueryRow(w.t.Context(), `SELECT coalesce(string_agg(x::text, chr(10) ORDER BY x::text), '') FROM `+table+` x WHERE merchant_id = $1`,
			merchantID).Scan(&rows); err != nil {
			w.t.Fatal(err)
		}
		all += table + "\n" + rows + "\n"
	}
	return all
}
