package api

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"payments/client"
	"payments/internal/idempotency"
	"payments/internal/payment"
	"payments/internal/postgres"
)

// in asks for a version.
func in(version string, more ...string) []string {
	return append([]string{headerVersion, version}, more...)
}

// withRefund is a payment of the merchant's that was captured and of which one refund failed.
func (w *world) withRefund() (paymentID string) {
	w.t.Helper()
	id := w.placed("A-1", "")
	w.make(id, payment.StatusSucceeded)
	if a := w.do("POST", "/v1/payments/"+id+"/refunds", w.merchant, `{"amount": 100}`, key("r-1")...); a.status != 202 {
		w.t.Fatal(a.body)
	}
	w.project()
	if _, err := w.pool.Exec(w.t.Context(), `UPDATE refund_view SET status = 'failed', failure_code = 'charge_disputed'`); err != nil {
		w.t.Fatal(err)
	}
	return id
}

// keyPinnedTo is an API key of the merchant's.
func (w *world) keyPinnedTo(version string) (id, text string) {
	w.t.Helper()
	return w.made(`{"mode":"test","role":"merchant","merchant":"`+w.merchantID+`","api_version":"`+version+`"}`, key("k-"+version)...)
}

// An answer is made in the version that the request names, or else in the one that its key is pinned to.
func TestARequestIsAnsweredInItsVersion(t *testing.T) {
	w := newWorld(t)
	path := "/v1/payments/" + w.withRefund() + "/refunds"
	keyID, pinned := w.keyPinnedTo(firstVersion)
	answered := func(what string, a answer, version string) {
		t.Helper()
		if a.status != 200 || a.header.Get(headerVersion) != version || !slices.Contains(a.header.Values("Vary"), headerVersion) ||
			strings.Contains(a.body, `"failure_code":"charge_disputed"`) != (version == firstVersion) ||
			strings.Contains(a.body, `"failure":{"code":"charge_disputed"}`) != (version != firstVersion) {
			t.Errorf("%s: %d in %s, varying by %v: %s", what, a.status, a.header.Get(headerVersion), a.header.Values("Vary"), a.body)
		}
	}
	answered("a new key", w.do("GET", path, w.merchant, ""), NewestVersion())
	answered("a pinned key", w.do("GET", path, pinned, ""), firstVersion)
	answered("named against the pin", w.do("GET", path, pinned, "", in(NewestVersion())...), NewestVersion())
	answered("named", w.do("GET", path, w.merchant, "", in(firstVersion)...), firstVersion)

	for _, unknown := range []string{"2026-11-02", "2999-01-01", "newest", "", firstVersion + ", " + firstVersion} {
		a := w.do("GET", path, w.merchant, "", headerVersion, " "+unknown+" ")
		w.refused(unknown, a, 400, codeVersionUnknown)
		if !strings.Contains(a.at(t, "detail").(string), strings.Join(Versions(), ", ")) {
			t.Errorf("%s: %s names no versions", unknown, a.body)
		}
	}
	// The answer tells an unauthenticated caller nothing, and the version that this caller names is ignored.
	w.refused("no key", w.do("GET", path, "", "", in("2999-01-01")...), 401, payment.CodeUnauthenticated)
	if a := w.do("GET", "/problems/not_found", "", "", in(firstVersion)...); a.status != 200 || a.header.Get(headerVersion) != firstVersion {
		t.Errorf("an open route: %d %v", a.status, a.header)
	}

	// A rotated key stays in its version, and a key is moved by its operator.
	rotated := w.do("POST", "/v1/ops/keys/"+keyID+"/rotate", w.operator, `{"mode":"test"}`, key("rotated")...)
	next := rotated.at(t, "secret_part").(string) + w.approved(rotated.at(t, "id").(string))
	answered("a rotated key", w.do("GET", path, next, ""), firstVersion)
	pin := "/v1/ops/keys/" + keyID + "/pin"
	if a := w.do("POST", pin, w.operator, `{"api_version":"`+NewestVersion()+`"}`); a.status != 200 || a.at(t, "api_version") != NewestVersion() {
		t.Errorf("pin: %d %s", a.status, a.body)
	}
	answered("a moved key", w.do("GET", path, pinned, ""), NewestVersion())
	if a := w.do("GET", "/v1/ops/keys?merchant="+w.merchantID, w.operator, ""); a.at(t, "data.0.api_version") != firstVersion || a.at(t, "data.1.api_version") != NewestVersion() {
		t.Errorf("list: %s", a.body)
	}
	for _, version := range []string{`"2026-11-02"`, `"x"`, `""`} {
		if errs := w.refused(version, w.do("POST", pin, w.operator, `{"api_version":`+version+`}`), 400, payment.CodeInvalid); !slices.Equal(errs, []string{"/api_version version_unknown"}) {
			t.Errorf("%s: %v", version, errs)
		}
	}
	w.refused("no such key", w.do("POST", "/v1/ops/keys/"+w.ids.New(payment.PrefixKey)+"/pin", w.operator, `{"api_version":"`+firstVersion+`"}`), 404, payment.CodeNotFound)

	// A newer process has pinned it: this one must not answer in another form.
	if _, err := w.pool.Exec(t.Context(), `UPDATE api_keys SET api_version = '2999-01-01' WHERE id = $1`, keyID); err != nil {
		t.Fatal(err)
	}
	w.refused("a version to come", w.do("GET", path, pinned, ""), 503, payment.CodeServiceUnavailable)
	answered("named nevertheless", w.do("GET", path, pinned, "", in(firstVersion)...), firstVersion)
}

// Every answer that holds a refund has it in the version's form; what does not is the same to the byte.
func TestAVersionIsOneEverywhere(t *testing.T) {
	w := newWorld(t)
	id := w.withRefund()
	for path, differs := range map[string]bool{
		"/v1/payments/" + id: false, "/v1/payments": false, "/v1/payments/" + id + "/timeline": false,
		"/v1/payments/" + id + "?expand=refunds": true, "/v1/payments?expand=refunds,timeline": true, "/v1/payments/" + id + "/refunds": true,
	} {
		for _, as := range []string{w.merchant, w.support} { // who sees the customer's address, and who does not
			now, before := w.do("GET", path, as, ""), w.do("GET", path, as, "", in(firstVersion)...)
			if now.status != 200 || before.status != 200 || (now.body != before.body) != differs || (now.header.Get("ETag") != before.header.Get("ETag")) != differs {
				t.Errorf("%s differs: want %v\n%s %s\n%s %s", path, differs, now.header.Get("ETag"), now.body, before.header.Get("ETag"), before.body)
			}
			if strings.Replace(now.body, `"failure":{"code":"charge_disputed"}`, `"failure_code":"charge_disputed"`, 1) != before.body {
				t.Errorf("%s: more is another than the version says:\n%s\n%s", path, now.body, before.body)
			}
			if strings.Contains(before.body, "ada@example.com") && as == w.support {
				t.Errorf("%s shows the address: %s", path, before.body)
			}
			// A tag is of the answer in its version.
			tag := before.header.Get("ETag")
			if a := w.do("GET", path, as, "", in(firstVersion, "If-None-Match", tag)...); a.status != 304 || a.header.Get("ETag") != tag || a.header.Get(headerVersion) != firstVersion {
				t.Errorf("%s known: %d %v", path, a.status, a.header)
			}
			if a := w.do("GET", path, as, "", "If-None-Match", tag); (a.status == 304) == differs {
				t.Errorf("%s known in another version: %d", path, a.status)
			}
			if a := w.do("HEAD", path, as, "", in(firstVersion)...); a.header.Get("ETag") != tag {
				t.Errorf("HEAD %s: %v", path, a.header)
			}
		}
		if strings.Contains(path, "?") || strings.HasSuffix(path, "/timeline") || path == "/v1/payments/"+id {
			continue
		}
		now, before := w.do("GET", path, w.merchant, "", "Accept", "text/csv"), w.do("GET", path, w.merchant, "", in(firstVersion, "Accept", "text/csv")...)
		if now.status != 200 || now.body != before.body || before.header.Get(headerVersion) != firstVersion {
			t.Errorf("%s as CSV: %s and %s", path, now.body, before.body)
		}
	}

	// A stream's events are webhooks' bodies, of their own version.
	_, pinned := w.keyPinnedTo(firstVersion)
	now, before := w.follow("/v1/payments/"+id+"/events", w.merchant, ""), w.followBy(w.server.Client(), "/v1/payments/"+id+"/events", pinned, "")
	for range 2 {
		a, err := now.next()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := before.next(); err != nil || a.data != b.data || a.event != b.event {
			t.Errorf("%+v and %+v, %v", a, b, err)
		}
	}
}

// The client gets what its types say, whichever version its key is pinned to.
func TestTheClientAsksForItsOwnVersion(t *testing.T) {
	w := newWorld(t)
	id := w.withRefund()
	_, pinned := w.keyPinnedTo(firstVersion)
	a, err := w.client(w.server.URL, pinned).ListRefunds(t.Context(), id, nil)
	if err != nil || a.Header.Get(headerVersion) != client.Version || a.Value.Data[0].Failure == nil || a.Value.Data[0].Failure.Code != "charge_disputed" {
		t.Errorf("%+v, %v", a, err)
	}
}

// An answer is kept once, and given again in the version that is asked for: the same bytes to the same version.
func TestAReplayIsInTheVersionOfItsRequest(t *testing.T) {
	w := newWorld(t)
	id := w.placed("A-1", "")
	w.make(id, payment.StatusSucceeded)
	path, body := "/v1/payments/"+id+"/refunds", `{"amount": 100, "reason": "a \"quoted\" ünt <b>"}`
	refund := func(version string) answer {
		t.Helper()
		return w.do("POST", path, w.merchant, body, in(version, "Idempotency-Key", "r-1")...)
	}
	first := refund(firstVersion)
	if first.status != 202 || !strings.Contains(first.body, `"failure_code":null,"created_at"`) || strings.Contains(first.body, `"failure":`) {
		t.Fatalf("%d %s", first.status, first.body)
	}
	now := refund(NewestVersion())
	if now.header.Get("Idempotent-Replayed") != "true" || now.header.Get(headerVersion) != NewestVersion() ||
		now.body != strings.Replace(first.body, `"failure_code":null`, `"failure":null`, 1) {
		t.Errorf("in the newest: %v %s, first %s", now.header, now.body, first.body)
	}
	for range 2 {
		for _, want := range []answer{first, now} {
			if a := refund(want.header.Get(headerVersion)); a.body != want.body || a.header.Get("Idempotent-Replayed") != "true" || len(a.header.Values(headerVersion)) != 1 {
				t.Errorf("again: %v %s, want %s", a.header, a.body, want.body)
			}
		}
	}

	// As it was kept before there were versions.
	w.rekeep("r-1", first.body, func(header map[string]string) { delete(header, headerVersion) })
	for _, want := range []answer{first, now} {
		if a := refund(want.header.Get(headerVersion)); a.status != 202 || a.body != want.body {
			t.Errorf("kept before: %s, want %s", a.body, want.body)
		}
	}
	failed := strings.Replace(first.body, `"failure_code":null`, `"failure_code":"charge_disputed"`, 1)
	w.rekeep("r-1", failed, func(header map[string]string) { header[headerVersion] = firstVersion })
	if a := refund(NewestVersion()); a.at(t, "failure.code") != "charge_disputed" {
		t.Errorf("kept before: %s", a.body)
	}
	if a := refund(firstVersion); a.body != failed {
		t.Errorf("kept before: %s, want %s", a.body, failed)
	}
	// As a newer process keeps it, while this one still runs.
	w.rekeep("r-1", first.body, func(header map[string]string) { header[headerVersion] = "2999-01-01" })
	w.refused("kept by a newer process", refund(NewestVersion()), 503, payment.CodeServiceUnavailable)

	// Of an API key that was made before there were versions.
	made := w.do("POST", "/v1/ops/keys", w.operator, `{"mode":"test","role":"auditor","holder":"ada"}`, key("k-1")...)
	again := w.do("POST", "/v1/ops/keys", w.operator, `{"mode":"test","role":"auditor","holder":"ada"}`, key("k-1")...)
	if made.at(t, "api_version") != NewestVersion() || again.at(t, "api_version") != NewestVersion() || again.at(t, "secret_part") != nil {
		t.Errorf("%s %s", made.body, again.body)
	}
	w.rekeepOf(made.at(t, "id").(string), strings.Replace(again.body, `"api_version":"`+NewestVersion()+`",`, "", 1), func(header map[string]string) { delete(header, headerVersion) })
	if a := w.do("POST", "/v1/ops/keys", w.operator, `{"mode":"test","role":"auditor","holder":"ada"}`, key("k-1")...); a.at(t, "api_version") != firstVersion {
		t.Errorf("kept before: %s", a.body)
	}
}

// rekeep puts another answer in the place of the kept one.
func (w *world) rekeep(key, body string, change func(header map[string]string)) {
	w.t.Helper()
	var id string
	if err := w.pool.QueryRow(w.t.Context(), `SELECT resource_id FROM idempotency_keys WHERE key = $1`, key).Scan(&id); err != nil {
		w.t.Fatal(err)
	}
	w.rekeepOf(id, body, change)
}

func (w *world) rekeepOf(id, body string, change func(header map[string]string)) {
	w.t.Helper()
	var header map[string]string
	if err := w.pool.QueryRow(w.t.Context(), `SELECT header FROM idempotency_keys WHERE resource_id = $1`, id).Scan(&header); err != nil {
		w.t.Fatal(err)
	}
	change(header)
	sealed, err := w.cipher.Encrypt([]byte(body), idempotency.BodyData(id))
	if err != nil {
		w.t.Fatal(err)
	}
	text, err := json.Marshal(header)
	if err != nil {
		w.t.Fatal(err)
	}
	owner, err := postgres.Open(w.t.Context(), w.owner)
	if err != nil {
		w.t.Fatal(err)
	}
	defer owner.Close()
	if tag, err := owner.Exec(w.t.Context(), `UPDATE idempotency_keys SET header = $2, body = $3 WHERE resource_id = $1`, id, text, sealed); err != nil || tag.RowsAffected() != 1 {
		w.t.Fatal(tag, err)
	}
}

// What is deprecated says so in each of its answers, and is counted.
func TestWhatIsDeprecatedSaysSo(t *testing.T) {
	w := newWorld(t)
	_, pinned := w.keyPinnedTo(firstVersion)
	for range 2 {
		if a := w.do("GET", "/v1/payments", w.merchant, ""); a.header.Get("Deprecation") != "" || a.header.Get("Sunset") != "" || a.header.Get("Link") != "" {
			t.Errorf("the newest: %v", a.header)
		}
		for _, a := range []answer{w.do("GET", "/v1/payments", pinned, ""), w.do("GET", "/v1/payments", w.merchant, "", in(firstVersion)...)} {
			if a.header.Get("Deprecation") != "@1795824000" || a.header.Get("Sunset") != "Tue, 01 Jun 2027 00:00:00 GMT" ||
				a.header.Get("Link") != `</openapi.yaml?version=2026-11-28>; rel="deprecation"; type="application/yaml"` {
				t.Errorf("the first: %v", a.header)
			}
		}
	}
	if a := w.do("GET", "/v1/payments/"+w.ids.New(payment.PrefixPayment), pinned, ""); a.status != 404 || a.header.Get("Deprecation") == "" {
		t.Errorf("a refusal: %d %v", a.status, a.header)
	}
	const counted = "payments_http_deprecated_requests_total"
	if err := testutil.GatherAndCompare(w.registry, strings.NewReader(`
# HELP `+counted+` Requests that were answered with Deprecation, by version of the API, method, and pattern of the route.
# TYPE `+counted+` counter
`+counted+`{method="GET",route="/v1/payments",version="2026-11-01"} 4
`+counted+`{method="GET",route="/v1/payments/{id}",version="2026-11-01"} 1
`), counted); err != nil {
		t.Error(err)
	}
	leads := w.do("GET", "/openapi.yaml?version=2026-11-28", "", "")
	if leads.status != 200 || leads.body != string(contract) {
		t.Errorf("the link leads to %d", leads.status)
	}
}
