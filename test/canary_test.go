package test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/segmentio/kafka-go"

	"payments/client"
	"payments/internal/devstack"
	"payments/internal/devstack/devtest"
)

// place is what somebody gets hold of who must not learn a secret by it.
type place struct {
	name    string
	content []byte
}

// forms of a text that is looked for: as it is, and as it would stand in a dump of
// bytea, in JSON, in a URL, and in base64 at each of the three places where it can begin.
func forms(text string) map[string][]byte {
	inJSON, _ := json.Marshal(text) // never fails on a string
	all := map[string][]byte{
		"plain": []byte(text), "hex": []byte(hex.EncodeToString([]byte(text))), "HEX": []byte(strings.ToUpper(hex.EncodeToString([]byte(text)))),
		"JSON": bytes.Trim(inJSON, `"`), "URL": []byte(url.QueryEscape(text)), "hex of base64": []byte(hex.EncodeToString([]byte(base64.StdEncoding.EncodeToString([]byte(text))))),
	}
	for shift := range 3 {
		padded := append(make([]byte, shift), text...)
		for name, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			// Without the characters that hold bits of what stands around it.
			encoded := encoding.EncodeToString(padded)[(shift*8+5)/6:]
			all[fmt.Sprintf("%s at %d", name, shift)] = []byte(encoded[:len(encoded)-1])
		}
	}
	return all
}

// occurrences are the forms of the text in a place.
func (p place) occurrences(text string) (found []string) {
	for form, b := range forms(text) {
		if bytes.Contains(p.content, b) {
			found = append(found, form)
		}
	}
	return found
}

func TestTheSearchFindsWhatIsPlanted(t *testing.T) {
	const text = `ada+canary@example.com/"quoted"`
	for form, planted := range map[string]string{
		"plain": text, "hex": `\x00ff` + hex.EncodeToString([]byte(text)) + "00", "JSON": `{"a":"ada+canary@example.com/\"quoted\""}`, "URL": "?q=" + url.QueryEscape(text),
		"base64 at 0": base64.StdEncoding.EncodeToString([]byte(text + " more")), "base64 at 1": base64.StdEncoding.EncodeToString([]byte("{" + text + "}")),
		"base64 at 2": base64.StdEncoding.EncodeToString([]byte("{{" + text + "}")), "base64url at 0": base64.URLEncoding.EncodeToString([]byte(text)),
	} {
		if found := (place{content: []byte("before " + planted + " after")}).occurrences(text); len(found) == 0 {
			t.Errorf("%s is not found in %s", form, planted)
		}
	}
	if found := (place{content: []byte("ada+canary@example.org")}).occurrences(text); len(found) > 0 {
		t.Errorf("found as %v in what does not have it", found)
	}
}

// A whole run, with every secret of the installation and a customer's address. Then
// the database, the topic, the logs, the metrics, the commands' output and the bank's
// ledger are searched: who has them has no secret, and no address.
func TestNoSecretIsStoredLoggedOrPublished(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	postgres, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := postgres.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := postgres.Provision(t.Context(), "payments"); err != nil {
		t.Fatal(err)
	}
	urls := devtest.URLs{URL: postgres.URL(devstack.ServiceRole, "payments"), OwnerURL: postgres.URL(devstack.OwnerRole, "payments")}
	if err := migrate(t.Context(), urls.OwnerURL, urls.URL); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, parts{database: urls})
	var traces, deliveries intake
	collector, hook := httptest.NewServer(&traces), httptest.NewServer(&deliveries)
	t.Cleanup(collector.Close)
	t.Cleanup(hook.Close)
	s := w.serve(map[string]string{
		"PAYMENTS_LOG_LEVEL": "debug", "PAYMENTS_TRACES_ENDPOINT": collector.URL, "PAYMENTS_TRACES_RATIO": "1", "PAYMENTS_WEBHOOKS_ALLOW_PRIVATE": "true",
	})
	made, err := w.send(t.Context(), http.MethodPost, s.url+"/v1/webhook_endpoints", w.vars["PAYMENTS_API_KEY"],
		fmt.Sprintf(`{"url":%q,"events":["*"]}`, hook.URL), map[string]string{"Idempotency-Key": "canary-hook"})
	if err != nil || made.status != http.StatusCreated {
		t.Fatalf("%d %s %v", made.status, made.body, err)
	}

	const email, card, reference = "ada.canary@example.com", "4111111111111111", "canary-reference"
	const unknown = "pm_canary_9fK2xQ7wLr" // to the bank, which keeps it nevertheless
	of := func(reference, method string) client.PaymentRequest {
		r := order(reference, method)
		r.Customer.Email = email
		return r
	}
	var paid client.Payment
	for i, method := range []string{"pm_card_visa", "pm_card_declined", "pm_card_capture_declined", "pm_card_flaky", "pm_card_timeout_applied", unknown} {
		p := w.paid(s, fmt.Sprintf("canary-%d", i), of(fmt.Sprintf("%s-%d", reference, i), method))
		if i == 0 {
			paid = p
		}
	}
	if got := w.payment(s, paid.ID); got.Customer.Email != email || got.PaymentMethod != "pm_card_visa" {
		t.Fatalf("the merchant reads %+v: the search would look for what was never taken", got)
	}
	ask := func(method, path, key, body string, status int) {
		t.Helper()
		a, err := w.send(t.Context(), method, s.url+path, key, body, map[string]string{"Idempotency-Key": "canary-" + path})
		if err != nil || a.status != status {
			t.Errorf("%s %s: %d %s, %v, want %d", method, path, a.status, a.body, err, status)
		}
	}
	merchant := w.vars["PAYMENTS_API_KEY"]
	ask(http.MethodPost, "/v1/payments/"+paid.ID+"/refunds", merchant, `{"amount": 100}`, http.StatusAccepted)
	// What is refused is not kept either: a card's number in the token's place, or as a member's name, or a mistyped key.
	ask(http.MethodPost, "/v1/payments", merchant, encode(of("refused", card)), http.StatusBadRequest)
	ask(http.MethodPost, "/v1/payments", merchant, `{"`+card+`": "`+email+`"}`, http.StatusBadRequest)
	ask(http.MethodGet, "/v1/payments", merchant+"x", "", http.StatusUnauthorized)
	ask(http.MethodGet, "/v1/payments?customer="+url.QueryEscape(email)+"&key="+merchant, merchant, "", http.StatusBadRequest)
	ask(http.MethodPost, "/v1/provider/webhooks/simulator", "", `{"id": "`+email+`"}`, http.StatusBadRequest)
	w.audited()
	await(t, settleWithin, func() string {
		if n := w.count(`SELECT count(*) FROM webhook_deliveries WHERE state <> 'succeeded'`); n > 0 {
			return fmt.Sprintf("%d deliveries are under way", n)
		}
		return ""
	})

	secrets := map[string]string{"the customer's address": email, "a card's number": card}
	for _, name := range []string{"PAYMENTS_API_KEY", "PAYMENTS_API_KEY_2", "PAYMENTS_OPERATOR_KEY", "PAYMENTS_OPERATOR_KEY_2"} {
		secrets[name] = w.vars[name]
		secrets["the secret of "+name] = w.vars[name][len("sk_test_")+26:][:32] // its id is public
	}
	for _, name := range []string{"PAYMENTS_PEPPER_KEYSET", "PAYMENTS_ENCRYPTION_KEYSET"} {
		secrets[name] = w.vars[name]
		keyset, err := base64.StdEncoding.DecodeString(w.vars[name])
		if err != nil {
			t.Fatal(err)
		}
		_, value, ok := strings.Cut(string(keyset), `"value":"`)
		if !ok {
			t.Fatalf("%s has no key", name)
		}
		secrets["the key of "+name], _, _ = strings.Cut(value, `"`)
	}
	// The bank has them in its own ledger, by which it is charged.
	methods := map[string]string{"a card's token": "pm_card_visa", "a refused card's token": "pm_card_declined", "an unknown token": unknown}
	secrets["PAYMENTS_SIMULATOR_WEBHOOK_SECRET"] = w.vars["PAYMENTS_SIMULATOR_WEBHOOK_SECRET"]
	secrets["the webhook endpoint's secret"] = strings.TrimPrefix(decode[struct{ Secret string }](t, made).Secret, "whsec_")
	u, err := url.Parse(urls.URL)
	if err != nil {
		t.Fatal(err)
	}
	secrets["the database's password"], _ = u.User.Password()

	metrics, err := w.get(s.admin+"/metrics", "")
	if err != nil {
		t.Fatal(err)
	}
	places := []place{
		w.dump(), w.topic("payments.events.v1"), {"the metrics", metrics.body}, {"the traces", traces.all()}, {"the deliveries", deliveries.all()},
		{"the commands' output", []byte(w.must("audit", "-settled") + w.must("sagas", "list") + w.must("deadletters", "list"))},
	}
	places = append(places, files(t, w.dir)...)
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	places = append(places, place{"the log of Postgres", log})

	// What has to be found there, so that a search that finds nothing has looked.
	for name, text := range map[string]string{
		"the database": reference, "the topic": paid.ID, "the traces": "POST /v1/payments", "the deliveries": paid.ID, "the metrics": "payments_http_requests_total", "serve-1.log": s.vars["PAYMENTS_ADDR"],
		"simulator.log": "simulator serves", "simulator.db": unknown, "the log of Postgres": "database system is ready",
	} {
		found := false
		for _, p := range places {
			found = found || p.name == name && len(p.occurrences(text)) > 0
		}
		if !found {
			t.Errorf("%q is not found in %s, where it stands", text, name)
		}
	}
	for _, p := range places {
		for name, text := range secrets {
			if len(text) < 12 {
				t.Fatalf("%s is too short to be looked for", name)
			}
			if found := p.occurrences(text); len(found) > 0 {
				t.Errorf("%s stands in %s, as %v", name, p.name, found)
			}
		}
		for name, text := range methods {
			if found := p.occurrences(text); len(found) > 0 && p.name != "simulator.db" {
				t.Errorf("%s stands in %s, as %v", name, p.name, found)
			}
		}
	}
}

// intake takes whatever is posted to it.
type intake struct {
	mu   sync.Mutex
	seen bytes.Buffer
}

func (i *intake) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	_ = r.Header.Write(&i.seen)
	_, _ = i.seen.ReadFrom(r.Body) // what a sender that was killed has left out is not there
}

func (i *intake) all() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	return bytes.Clone(i.seen.Bytes())
}

// dump is every row of every table of every schema, bytea in hex, as pg_dump writes it.
func (w *world) dump() place {
	w.t.Helper()
	rows, err := w.db.Query(w.t.Context(), `
		SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
		UNION ALL SELECT schemaname, matviewname FROM pg_matviews`)
	if err != nil {
		w.t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (name pgx.Identifier, err error) {
		name = make(pgx.Identifier, 2)
		return name, row.Scan(&name[0], &name[1])
	})
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := w.db.Acquire(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Release()
	var b bytes.Buffer
	for _, table := range tables {
		if _, err := conn.Conn().PgConn().CopyTo(w.t.Context(), &b, "COPY (SELECT * FROM "+table.Sanitize()+") TO STDOUT"); err != nil {
			w.t.Fatalf("%s: %v", table.Sanitize(), err)
		}
	}
	return place{"the database", b.Bytes()}
}

// topic is every message of it, with key and headers.
func (w *world) topic(name string) place {
	w.t.Helper()
	brokers, name := strings.Split(w.vars["PAYMENTS_KAFKA_BROKERS"], ","), w.vars["PAYMENTS_KAFKA_PREFIX"]+name
	conn, err := kafka.DialContext(w.t.Context(), "tcp", brokers[0])
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	partitions, err := conn.ReadPartitions(name)
	if err != nil {
		w.t.Fatal(err)
	}
	var b bytes.Buffer
	for _, p := range partitions {
		leader, err := kafka.DialLeader(w.t.Context(), "tcp", brokers[0], name, p.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		last, err := leader.ReadLastOffset()
		if err != nil {
			w.t.Fatal(err)
		}
		leader.Close()
		r := kafka.NewReader(kafka.ReaderConfig{Brokers: brokers, Topic: name, Partition: p.ID})
		for next := int64(0); next < last; {
			m, err := r.ReadMessage(w.t.Context())
			if err != nil {
				w.t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s %s %s\n", m.Key, m.Headers, m.Value)
			next = m.Offset + 1
		}
		r.Close()
	}
	return place{"the topic", b.Bytes()}
}

// files below dir: the logs of the processes and the bank's ledger.
func files(t *testing.T, dir string) (all []place) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		all = append(all, place{filepath.Base(path), content})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}
