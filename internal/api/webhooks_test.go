package api

import (
	"fmt"
	"strings"
	"testing"

	"payments/internal/payment"
)

const goodEndpoint = `{"url":"https://hooks.example.com/payments","events":["order.confirmed","order.failed"]}`

func (w *world) newEndpoint(key, idempotencyKey string) answer {
	w.t.Helper()
	a := w.do("POST", "/v1/webhook_endpoints", key, goodEndpoint, "Idempotency-Key", idempotencyKey)
	if a.status != 201 {
		w.t.Fatalf("create: %d %s", a.status, a.body)
	}
	return a
}

func TestWebhookSecretIsShownOnceAndByItsReplay(t *testing.T) {
	w := newWorld(t)
	made := w.newEndpoint(w.merchant, "k1")
	id, secret := made.at(t, "id").(string), made.at(t, "secret").(string)
	if !payment.ValidID(payment.PrefixEndpoint, id) || !strings.HasPrefix(secret, "whsec_") || made.header.Get("Location") != "/v1/webhook_endpoints/"+id {
		t.Fatalf("made %s at %s", made.body, made.header.Get("Location"))
	}
	replay := w.newEndpoint(w.merchant, "k1")
	if replay.body != made.body || replay.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("replay: %s", replay.body)
	}
	w.refused("the key for something else", w.do("POST", "/v1/payments", w.merchant, good, "Idempotency-Key", "k1"), 422, payment.CodeKeyReused)
	one := w.do("GET", "/v1/webhook_endpoints/"+id, w.merchant, "")
	list := w.do("GET", "/v1/webhook_endpoints", w.merchant, "")
	for _, a := range []answer{one, list, w.do("GET", "/v1/webhook_endpoints/"+id, w.operator, "")} {
		if a.status != 200 || strings.Contains(a.body, "secret") || !strings.Contains(a.body, `"url":"https://hooks.example.com/payments"`) {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	rotated := w.do("POST", "/v1/webhook_endpoints/"+id+"/rotate_secret", w.merchant, `{"overlap_seconds":3600}`, "Idempotency-Key", "k2")
	if rotated.status != 201 || rotated.at(t, "secret") == secret || rotated.at(t, "previous_secret_ends_at") == nil {
		t.Errorf("rotated: %d %s", rotated.status, rotated.body)
	}
	if again := w.do("POST", "/v1/webhook_endpoints/"+id+"/rotate_secret", w.merchant, `{"overlap_seconds":3600}`, "Idempotency-Key", "k2"); again.body != rotated.body {
		t.Errorf("a repeated rotation rotates again: %s", again.body)
	}
	var plain int
	if err := w.pool.QueryRow(t.Context(), `
		SELECT (SELECT count(*) FROM webhook_secrets s WHERE position(convert_to($1, 'UTF8') IN s.ciphertext) > 0)
			+ (SELECT count(*) FROM idempotency_keys k WHERE position(convert_to($1, 'UTF8') IN k.body) > 0)`, secret).Scan(&plain); err != nil || plain != 0 {
		t.Errorf("the secret lies in %d rows in the clear, %v", plain, err)
	}
	if strings.Contains(w.log.String(), secret) {
		t.Error("the secret is in the log")
	}
}

func TestWebhookEndpointsThatAreRefused(t *testing.T) {
	w := newWorld(t)
	body := func(url, events string) string { return fmt.Sprintf(`{"url":%q,"events":%s}`, url, events) }
	for name, test := range map[string]struct{ body, errors string }{
		"nothing":             {`{}`, "/url missing,/events missing"},
		"http":                {body("http://example.com/", `["*"]`), "/url url_scheme"},
		"loopback":            {body("https://127.0.0.1/s3cret", `["*"]`), "/url url_address"},
		"private":             {body("https://10.1.2.3/", `["*"]`), "/url url_address"},
		"metadata":            {body("https://169.254.169.254/", `["*"]`), "/url url_address"},
		"mapped":              {body("https://[::ffff:10.0.0.1]/", `["*"]`), "/url url_address"},
		"credentials":         {body("https://a:s3cret@example.com/", `["*"]`), "/url url_credentials"},
		"port":                {body("https://example.com:25/", `["*"]`), "/url url_port"},
		"no events":           {body("https://example.com/", `[]`), "/events events_invalid"},
		"unknown event":       {body("https://example.com/", `["s3cret"]`), "/events/0 events_invalid"},
		"event twice":         {body("https://example.com/", `["order.failed","order.failed"]`), "/events/1 events_invalid"},
		"all and one":         {body("https://example.com/", `["*","order.failed"]`), "/events/0 events_invalid"},
		"null event":          {body("https://example.com/", `[null]`), "/events/0 null_invalid"},
		"both":                {body("https://[::1]/", `["x"]`), "/url url_address,/events/0 events_invalid"},
		"member that is none": {`{"url":"https://example.com/","events":["*"],"secret":"x"}`, "/secret member_unknown"},
	} {
		a := w.do("POST", "/v1/webhook_endpoints", w.merchant, test.body, "Idempotency-Key", "k")
		if got := strings.Join(w.refused(name, a, 400, payment.CodeInvalid), ","); got != test.errors || strings.Contains(a.body, "s3cret") {
			t.Errorf("%s: %s", name, a.body)
		}
	}
	w.refused("no key", w.do("POST", "/v1/webhook_endpoints", w.merchant, goodEndpoint), 400, payment.CodeKeyMissing)
	w.refused("an operator", w.do("POST", "/v1/webhook_endpoints", w.operator, goodEndpoint, "Idempotency-Key", "k"), 403, payment.CodeForbidden)
	id := w.newEndpoint(w.merchant, "k").at(t, "id").(string)
	rotate := "/v1/webhook_endpoints/" + id + "/rotate_secret"
	w.refused("an overlap of 8 days", w.do("POST", rotate, w.merchant, `{"overlap_seconds":691200}`, "Idempotency-Key", "r"), 400, payment.CodeInvalid)
	w.refused("rotation without a key", w.do("POST", rotate, w.merchant, `{}`), 400, payment.CodeKeyMissing)
	for _, query := range []string{"?cursor=x", "?cursor=cGF5XzAx", "?limit=0", "?limit=101", "?after=1"} {
		w.refused(query, w.do("GET", "/v1/webhook_endpoints"+query, w.merchant, ""), 400, payment.CodeInvalid)
		w.refused(query, w.do("GET", "/v1/webhook_endpoints/"+id+"/deliveries"+query, w.merchant, ""), 400, payment.CodeInvalid)
	}
}

// What is another merchant's answers as what is not there, byte for byte but the request's id.
func TestWebhookEndpointsOfAnother(t *testing.T) {
	w := newWorld(t)
	id := w.newEndpoint(w.merchant, "k1").at(t, "id").(string)
	absent := w.ids.New(payment.PrefixEndpoint)
	delivery := w.ids.New(payment.PrefixDelivery)
	for _, r := range [][3]string{
		{"GET", "", ""}, {"DELETE", "", ""}, {"POST", "/rotate_secret", "{}"}, {"GET", "/deliveries", ""}, {"POST", "/enable", ""}, {"POST", "/redeliver", "{}"},
		{"POST", "/deliveries/" + delivery + "/redeliver", ""},
	} {
		strip := func(a answer) string {
			return strings.ReplaceAll(a.body, a.header.Get("Request-Id"), "")
		}
		theirs := w.do(r[0], "/v1/webhook_endpoints/"+id+r[1], w.other, r[2], "Idempotency-Key", "k")
		nobodys := w.do(r[0], "/v1/webhook_endpoints/"+absent+r[1], w.other, r[2], "Idempotency-Key", "k")
		if theirs.status != 404 || strip(theirs) != strip(nobodys) {
			t.Errorf("%s %s: %d %s, of nobody's: %s", r[0], r[1], theirs.status, theirs.body, nobodys.body)
		}
	}
	if a := w.do("GET", "/v1/webhook_endpoints", w.other, ""); a.body != `{"object":"list","data":[],"has_more":false,"next_cursor":null}` {
		t.Errorf("the other's list: %s", a.body)
	}
	if a := w.do("DELETE", "/v1/webhook_endpoints/"+id, w.merchant, ""); a.status != 204 || a.body != "" {
		t.Errorf("delete: %d %s", a.status, a.body)
	}
	w.refused("deleted twice", w.do("DELETE", "/v1/webhook_endpoints/"+id, w.merchant, ""), 404, payment.CodeNotFound)
}

func TestWebhookListsArePaged(t *testing.T) {
	w := newWorld(t)
	var ids []string
	for i := range 3 {
		ids = append(ids, w.newEndpoint(w.merchant, fmt.Sprint(i)).at(t, "id").(string))
	}
	for range 3 {
		if _, err := w.pool.Exec(t.Context(), `
			INSERT INTO webhook_deliveries (merchant_id, id, endpoint_id, event_id, event_type, payment_id, body)
			VALUES ($1, $2, $3, $4, 'order.confirmed', $5, '{}')`,
			w.merchantID, w.ids.New(payment.PrefixDelivery), ids[0], w.ids.New(payment.PrefixEvent), w.ids.New(payment.PrefixPayment)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/v1/webhook_endpoints", "/v1/webhook_endpoints/" + ids[0] + "/deliveries"} {
		first := w.do("GET", path+"?limit=2", w.merchant, "")
		if strings.Count(first.body, `"object":"webhook_`) != 2 || first.at(t, "has_more") != true {
			t.Fatalf("%s: %s", path, first.body)
		}
		second := w.do("GET", path+"?limit=2&cursor="+first.at(t, "next_cursor").(string), w.merchant, "")
		if strings.Count(second.body, `"object":"webhook_`) != 1 || second.at(t, "has_more") != false || second.at(t, "next_cursor") != nil {
			t.Errorf("%s: the second page %s", path, second.body)
		}
	}
	log := w.do("GET", "/v1/webhook_endpoints/"+ids[0]+"/deliveries?limit=1", w.merchant, "")
	id := log.at(t, "data.0.id").(string)
	if a := w.do("POST", "/v1/webhook_endpoints/"+ids[0]+"/deliveries/"+id+"/redeliver", w.merchant, ""); a.status != 202 || a.at(t, "status") != "pending" {
		t.Errorf("redeliver: %d %s", a.status, a.body)
	}
	w.refused("of another endpoint", w.do("POST", "/v1/webhook_endpoints/"+ids[1]+"/deliveries/"+id+"/redeliver", w.merchant, ""), 404, payment.CodeNotFound)
}

func TestWhatAnEndpointMissedIsRedelivered(t *testing.T) {
	w := newWorld(t)
	id := w.newEndpoint(w.merchant, "k1").at(t, "id").(string)
	for day := 1; day <= 5; day++ {
		if _, err := w.pool.Exec(t.Context(), `
			INSERT INTO webhook_missed (merchant_id, endpoint_id, event_id, event_type, payment_id, body, missed_at)
			VALUES ($1, $2, $3, 'order.confirmed', $4, '{}', make_timestamptz(2026, 11, $5, 12, 0, 0, 'UTC'))`,
			w.merchantID, id, w.ids.New(payment.PrefixEvent), w.ids.New(payment.PrefixPayment), day); err != nil {
			t.Fatal(err)
		}
	}
	path := "/v1/webhook_endpoints/" + id + "/redeliver"
	disable := func(by string) {
		t.Helper()
		if _, err := w.pool.Exec(t.Context(), `UPDATE webhook_endpoints SET `+by); err != nil {
			t.Fatal(err)
		}
	}
	disable(`disabled_at = now(), disabled_reason = 'failing'`)
	w.refused("a disabled one", w.do("POST", path, w.merchant, `{}`), 409, payment.CodeWebhookDisabled)
	disable(`disabled_at = NULL, disabled_reason = NULL`)
	for body, want := range map[string]string{
		`{"from":"yesterday"}`: "/from time_invalid", `{"to":"2026-11-01"}`: "/to time_invalid", `{"from":"x","to":""}`: "/from time_invalid,/to time_invalid",
		`{"from":"2026-11-02T00:00:00Z","to":"2026-11-02T00:00:00Z"}`: "/to out_of_range", `{"since":"2026-11-02T00:00:00Z"}`: "/since member_unknown", `{"from":null}`: "/from null_invalid",
	} {
		if got := strings.Join(w.refused(body, w.do("POST", path, w.merchant, body), 400, payment.CodeInvalid), ","); got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	for _, c := range [][2]string{
		{`{"from":"2026-11-02T00:00:00Z","to":"2026-11-04T00:00:00Z"}`, `"missed":2,"failed":0,"has_more":false}`},
		{`{"from":"2026-11-02T00:00:00Z","to":"2026-11-04T00:00:00Z"}`, `"missed":0,"failed":0,"has_more":false}`}, // a repetition
		{`{"to":"2026-11-02T13:00:00+01:00"}`, `"missed":1,"failed":0,"has_more":false}`},
		{``, `"missed":2,"failed":0,"has_more":false}`},
	} {
		if a := w.do("POST", path, w.merchant, c[0]); a.status != 202 || a.body != `{"object":"webhook_redelivery","endpoint":"`+id+`",`+c[1] {
			t.Errorf("%s: %d %s, want %s", c[0], a.status, a.body, c[1])
		}
	}
	log := w.do("GET", "/v1/webhook_endpoints/"+id+"/deliveries", w.merchant, "")
	if n := strings.Count(log.body, `"status":"pending"`); n != 5 {
		t.Errorf("%d deliveries are pending: %s", n, log.body)
	}
	w.refused("an operator", w.do("POST", path, w.operator, `{}`), 404, payment.CodeNotFound)
}
