package api

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/access"
	"payments/internal/api/contracttest"
	"payments/internal/payment"
)

// seed of what is random in the requests; every operation has a source of its own.
const seed = 20261124

// unsayable are the refusals of requests that the document has nothing against, since
// JSON Schema cannot say why.
var unsayable = map[string]string{
	"amount_mismatch":             "the sum of the lines",
	"/order/lines/0 out_of_range": "the sum of the lines",
	"/verdict missing":            "a proposal's",
	"integer_invalid":             "1.0 and 1e2 are integers to JSON Schema, and no amounts here",
	"url_address":                 "webhook.Guard",
	"url_port":                    "webhook.Guard",
	"url_scheme":                  "webhook.Guard of an installation that is no demo",
	"network_invalid":             "the bits behind a network's length",
	"time_invalid":                "what is to come",
	"item_duplicate":              "two items of one merchant and sku",
	"cursor_invalid":              "a cursor is signed",
	"sort_with_search":            "two parameters that exclude each other",
	"parameter_unknown":           "count or expand of an export",
	"group_invalid":               "one of day, week and month",
	"read_after_invalid":          "a token has a form of its own",

	// What nobody sees in a name (payment.BusinessKey): JSON Schema has no classes of Unicode.
	"sku_invalid":                      "an invisible character",
	"/customer/reference text_invalid": "an invisible character",
	"/order/reference text_invalid":    "an invisible character",
	"/query/customer text_invalid":     "an invisible character",
	"/query/order text_invalid":        "an invisible character",
}

// aim is a valid request of an operation.
type aim struct {
	path, key string
	params    map[string]string // of the path
}

func (w *world) aimAt(o contracttest.Operation, x theirs, blocked string) aim {
	w.t.Helper()
	id := x.payment
	switch {
	case strings.Contains(o.Path, "/sagas/"):
		id = x.saga
	case strings.Contains(o.Path, "/keys/"):
		id = x.keyID
	case strings.Contains(o.Path, "/webhook_endpoints/"):
		id = x.endpoint
	case strings.Contains(o.Path, "/provider_changes/"):
		id = x.change
	case strings.Contains(o.Path, "/parked/"):
		id = blocked
	}
	a := aim{params: map[string]string{"id": id, "delivery": x.delivery, "act": "propose", "provider": "simulator", "asset": "LICENSE", "guide": "webhooks", "code": "not_found"}}
	a.path = a.with("", "")(o.Path)
	for _, rt := range (&server{Config: w.api}).routes() {
		if rt.method != o.Method || rt.pattern != o.Path || rt.action == "" {
			continue
		}
		for _, k := range []struct {
			key  string
			role access.Role
		}{{w.other, access.RoleMerchant}, {w.operator, access.RoleOperator}} {
			p := access.Principal{KeyID: "key_1", Role: k.role}
			if k.role.OfMerchant() {
				p.MerchantID = w.otherID
			}
			if _, err := w.api.Authorizer.Authorize(w.t.Context(), p, rt.action); err == nil {
				a.key = k.key
				return a
			}
		}
	}
	return a
}

// with fills a path, one of its parameters with something else.
func (a aim) with(name, value string) func(path string) string {
	return func(path string) string {
		for n, v := range a.params {
			if n == name {
				v = url.PathEscape(value)
			}
			path = strings.ReplaceAll(path, "{"+n+"}", v)
		}
		return path
	}
}

// stored counts the rows of every table, less those that only say that somebody called.
func (w *world) stored() map[string]int64 {
	w.t.Helper()
	rows, err := w.pool.Query(w.t.Context(), `
		SELECT relname, (xpath('/row/n/text()', query_to_xml('SELECT count(*) AS n FROM public.' || quote_ident(relname), false, true, '')))[1]::text::bigint
		FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND has_table_privilege(oid, 'SELECT')`)
	if err != nil {
		w.t.Fatal(err)
	}
	all := map[string]int64{}
	var name string
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&name, &n}, func() error {
		all[name] = n
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// Every member and parameter of every operation gets what is wrong for it: the answer
// is a documented problem that names it, never a fault of ours, and nothing is
// written. What the document has nothing against is not refused as invalid.
func TestEveryOperationRefusesWhatItsDocumentDoes(t *testing.T) {
	w := newWorld(t)
	x := w.plant()
	w.refreshReports()
	if _, err := w.pool.Exec(t.Context(), `INSERT INTO merchants (id, name) VALUES ('mer_01m86y4ap9ecqaxaqqqxxb77hg', 'Example')`); err != nil {
		t.Fatal(err)
	}
	blocked := w.block(w.ids.New(payment.PrefixOrder), `{"a": 1}`)
	sent := map[bool]int{}
	for _, o := range document(t).Operations() {
		hash := fnv.New64a()
		_, _ = hash.Write([]byte(o.Method + o.Path))
		random := rand.New(rand.NewPCG(seed, hash.Sum64()))
		target := w.aimAt(o, x, blocked)
		bodies, err := document(t).Bodies(o, random)
		if err != nil {
			t.Fatal(err)
		}
		cases := slices.Concat(bodies, document(t).Queries(o, random), document(t).Headers(o, random))
		// It would do what the operation is for: revoke the key, or follow a stream that does not end.
		cases = slices.DeleteFunc(cases, func(c contracttest.Case) bool { return c.Header == headerVersion && c.Allowed })
		slices.SortStableFunc(cases, func(a, b contracttest.Case) int { return rank(a) - rank(b) })
		before, checked := w.stored(), false
		for _, c := range cases {
			if c.Allowed && !checked { // what is refused comes first
				w.unchanged(o, before)
				checked = true
			}
			sent[c.Allowed]++
			w.try(o, target, c)
		}
		w.paths(o, target)
		w.contentTypes(o, target, bodies)
		if !checked {
			w.unchanged(o, before)
		}
	}
	t.Logf("%d requests that are refused, %d that are not", sent[false], sent[true])
	if sent[false] < 1000 || sent[true] < 500 {
		t.Errorf("only %v requests were made", sent)
	}
}

func rank(c contracttest.Case) int {
	if c.Allowed {
		return 1
	}
	return 0
}

func (w *world) unchanged(o contracttest.Operation, before map[string]int64) {
	w.t.Helper()
	if after := w.stored(); !maps.Equal(before, after) {
		w.t.Errorf("%s %s: refused requests left rows: %v, there were %v", o.Method, o.Path, after, before)
	}
}

func (w *world) send(o contracttest.Operation, target aim, c contracttest.Case) answer {
	w.t.Helper()
	path := target.path
	if strings.Contains(path, "/propose") && !strings.Contains(c.Base, "verdict") {
		path = strings.Replace(path, "/propose", "/pause", 1)
	}
	if c.Query != "" {
		path += "?" + c.Query
	}
	headers := []string{"Idempotency-Key", ""}
	for _, p := range o.Parameters {
		if p["name"] == "Idempotency-Key" {
			headers = []string{"Idempotency-Key", w.ids.New("try")}
		}
	}
	if strings.HasPrefix(o.Path, "/v1/provider/") {
		headers = append(headers, "Provider-Signature", signed(providerSecret, c.Body))
	}
	if c.Header != "" {
		headers = append(headers, c.Header, c.Value)
		if o.Definition["requestBody"] != nil {
			c.Body = c.Base
		}
	}
	return w.do(o.Method, path, target.key, c.Body, headers...)
}

func (w *world) try(o contracttest.Operation, target aim, c contracttest.Case) {
	w.t.Helper()
	a := w.send(o, target, c)
	what := fmt.Sprintf("%s %s: %s", o.Method, o.Path, c.Name)
	if a.status >= 500 && a.status != 503 {
		w.t.Errorf("%s: %d %.300s for %.300s", what, a.status, a.body, c.Body)
		return
	}
	if a.status < 400 {
		if !c.Allowed {
			w.t.Errorf("%s: %d, and the document refuses %.300s", what, a.status, c.Body)
		}
		return
	}
	var p problemDocument
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		w.t.Errorf("%s: %d %.300s", what, a.status, a.body)
		return
	}
	if c.Allowed {
		for _, e := range p.Errors {
			if unsayable[e.Code] == "" && unsayable[e.Pointer+" "+e.Code] == "" {
				w.t.Errorf("%s: %d %s, and the document has nothing against %.300s", what, a.status, a.body, c.Body)
			}
		}
		return
	}
	named := len(p.Errors) > 0 && (c.At == "" || c.Choice) || p.Code == codeBodyTooLarge || strings.HasPrefix(o.Path, "/v1/provider/") ||
		c.Header != "" && strings.HasPrefix(string(p.Code), strings.ReplaceAll(strings.ToLower(c.Header), "-", "_")) // a field's problem has its name
	for _, e := range p.Errors {
		named = named || e.Pointer == c.At || strings.HasPrefix(e.Pointer, c.At+"/") || strings.HasPrefix(c.At, e.Pointer+"/")
	}
	if !named {
		w.t.Errorf("%s: %d %s does not name it: %.300s", what, a.status, a.body, c.Body)
	}
}

// contentTypes gives the example as what it is not, and nothing at all.
func (w *world) contentTypes(o contracttest.Operation, target aim, bodies []contracttest.Case) {
	w.t.Helper()
	if len(bodies) == 0 {
		return
	}
	for _, contentType := range []string{
		"", "text/plain", "text/json", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=utf-16",
		"application/problem+json", "application/*", "json", "application/json, application/json", ";", "application/json;=",
	} {
		a := w.send(o, target, contracttest.Case{Body: bodies[0].Base, Base: bodies[0].Base, Header: "Content-Type", Value: contentType})
		w.refused(o.Method+" "+o.Path+" as "+contentType, a, 415, codeContentType)
	}
	a := w.send(o, target, contracttest.Case{Body: bodies[0].Base, Base: bodies[0].Base, Header: "Content-Encoding", Value: "gzip"})
	w.refused(o.Method+" "+o.Path+" compressed", a, 415, codeContentType)
}

// paths gives what is no id, and what nobody has.
func (w *world) paths(o contracttest.Operation, target aim) {
	w.t.Helper()
	for name, v := range target.params {
		if !strings.Contains(o.Path, "{"+name+"}") {
			continue
		}
		for _, wrong := range []string{
			"x", "%", "\x00", "\xff", "..", " ", "é", "a/b", v + "x", v + "\n", strings.ToUpper(v), v[:len(v)-1], strings.Repeat("x", 5000), "'; --", "pay_" + freshID[:25] + "u",
			"pay_" + freshID, "ref_" + freshID,
		} {
			a := w.send(o, aim{target.with(name, wrong)(o.Path), target.key, nil}, contracttest.Case{Body: "{}"})
			if a.status >= 500 || a.status < 400 && wrong != v {
				w.t.Errorf("%s %s with %s=%.40q: %d %.200s", o.Method, o.Path, name, wrong, a.status, a.body)
			}
		}
	}
}
