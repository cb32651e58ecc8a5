package api

import (
	"bytes"
	"errors"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.yaml.in/yaml/v3"

	"payments/internal/payment"
)

// minNotice is between a deprecation and its sunset.
const minNotice = 180 * 24 * time.Hour

// dated are the x-deprecated-at and x-sunset of a document, wherever they stand: of an operation, a parameter, a
// member, or the version itself.
func dated(n *yaml.Node, at string, visit func(at string, deprecated bool, since, sunset string)) {
	if n.Kind == yaml.MappingNode {
		has := map[string]string{}
		for i := 0; i < len(n.Content); i += 2 {
			has[n.Content[i].Value] = n.Content[i+1].Value
		}
		if has["x-deprecated-at"] != "" || has["x-sunset"] != "" || has["deprecated"] == "true" {
			visit(at, has["deprecated"] == "true" || at == ".info", has["x-deprecated-at"], has["x-sunset"])
		}
		for i := 0; i < len(n.Content); i += 2 {
			dated(n.Content[i+1], at+"."+n.Content[i].Value, visit)
		}
		return
	}
	for _, c := range n.Content {
		dated(c, at, visit)
	}
}

// unfair are the notices of a document that say too little, or come too late.
func unfair(t *testing.T, document []byte) (problems []string) {
	t.Helper()
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		t.Fatal(err)
	}
	dated(&root, "", func(at string, deprecated bool, since, sunset string) {
		from, err := time.Parse(time.DateOnly, since)
		until, err2 := time.Parse(time.DateOnly, sunset)
		if !deprecated || err != nil || err2 != nil || until.Sub(from) < minNotice {
			problems = append(problems, at)
		}
	})
	return problems
}

func TestASunsetComesHalfAYearAfterItsNotice(t *testing.T) {
	for i, v := range versions {
		for _, p := range unfair(t, v.contract.plain()) {
			t.Errorf("the document of %s: %s is to be deprecated with x-deprecated-at, and x-sunset 180 days later", v.date, p)
		}
		all, err := readDeprecations()
		if err != nil {
			t.Fatal(err)
		}
		if all[i].version.at.IsZero() != (i == 0) || all[i].version.sunset.IsZero() != (i == 0) {
			t.Errorf("%s: deprecated %v; every version but the newest is", v.date, all[i].version)
		}
	}
	const operation = "paths:\n  /v1/stock:\n    get:\n      "
	for notice, fair := range map[string]bool{
		"deprecated: true\n      x-deprecated-at: '2026-11-28'\n      x-sunset: '2027-05-27'": true,
		"deprecated: true\n      x-deprecated-at: '2026-11-28'\n      x-sunset: '2027-05-26'": false,
		"deprecated: true\n      x-sunset: '2027-05-27'":                                      false,
		"deprecated: true\n      x-deprecated-at: '2026-11-28'":                               false,
		"x-deprecated-at: '2026-11-28'\n      x-sunset: '2027-05-27'":                         false,
	} {
		if problems := unfair(t, []byte(operation+notice)); (len(problems) == 0) != fair {
			t.Errorf("%s: %v", notice, problems)
		}
	}
}

// An operation that the document deprecates says so; of two notices the earlier day counts.
func TestADeprecatedOperationSaysSo(t *testing.T) {
	d, err := deprecationsOf([]byte(`
info: {x-deprecated-at: '2026-12-01', x-sunset: '2027-12-01'}
paths:
  /v1/stock:
    parameters: []
    get: {deprecated: true, x-deprecated-at: '2027-01-01', x-sunset: '2027-10-01'}
`))
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	s := &server{metrics: m, deprecations: []deprecations{{operations: d.operations}, d}}
	for _, c := range []struct {
		version                  int
		method, route            string
		deprecation, sunset, why string
	}{
		{0, "GET", "/v1/stock", "@1798761600", "Fri, 01 Oct 2027 00:00:00 GMT", "the operation"},
		{0, "HEAD", "/v1/stock", "@1798761600", "Fri, 01 Oct 2027 00:00:00 GMT", "the operation, by HEAD"},
		{0, "PUT", "/v1/stock", "", "", "another operation"},
		{1, "PUT", "/v1/stock", "@1796083200", "Wed, 01 Dec 2027 00:00:00 GMT", "the version"},
		{1, "GET", "/v1/stock", "@1796083200", "Fri, 01 Oct 2027 00:00:00 GMT", "both"},
	} {
		c2 := &call{w: &recorder{ResponseWriter: httptest.NewRecorder(), route: c.route, version: c.version}, r: httptest.NewRequest(c.method, c.route, nil)}
		s.tellDeprecation(c2)
		h := c2.w.Header()
		if h.Get("Deprecation") != c.deprecation || h.Get("Sunset") != c.sunset || (h.Get("Link") == "") != (c.deprecation == "") {
			t.Errorf("%s: %v", c.why, h)
		}
	}
	if n := testutil.ToFloat64(m.deprecated.WithLabelValues(NewestVersion(), "GET", "/v1/stock")); n != 2 {
		t.Errorf("%v uses of the operation are counted", n)
	}
	for _, wrong := range []string{"info: {x-sunset: '2027-12-01'}", "info: {x-deprecated-at: soon}", "paths: {/a: {get: {x-deprecated-at: '2026-12-01', x-sunset: later}}}", "\t"} {
		if _, err := deprecationsOf([]byte(wrong)); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}

// The older documents are what the newest and their patches come to (-update writes them), so that an addition to
// the newest is one to them.
func TestTheOlderDocumentsAreOfTheNewest(t *testing.T) {
	var document yaml.Node
	if err := yaml.Unmarshal(contract, &document); err != nil {
		t.Fatal(err)
	}
	for i, v := range versions[1:] {
		var patch yaml.Node
		name := "versions/" + v.date
		text, err := os.ReadFile(name + ".patch.yaml")
		if err == nil {
			err = yaml.Unmarshal(text, &patch)
		}
		if err == nil {
			err = merge(document.Content[0], patch.Content[0])
		}
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		b.WriteString("# Written from the document of " + versions[i].date + " and " + v.date + ".patch.yaml: go test ./internal/api -run OlderDocuments -update\n")
		e := yaml.NewEncoder(&b)
		e.SetIndent(2)
		if err := errors.Join(e.Encode(&document), e.Close()); err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(name+".yaml", b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if have, err := os.ReadFile(name + ".yaml"); err != nil || !bytes.Equal(have, b.Bytes()) {
			t.Errorf("%s.yaml is not what its patch makes of %s (-update writes it): %v", name, versions[i].date, err)
		}
	}
}

// merge applies a JSON merge patch (RFC 7396), which has to take away what is there.
func merge(into, patch *yaml.Node) error {
	for i := 0; i < len(patch.Content); i += 2 {
		name, with := patch.Content[i], patch.Content[i+1]
		at := 0
		for at < len(into.Content) && into.Content[at].Value != name.Value {
			at += 2
		}
		found := at < len(into.Content)
		switch {
		case with.Tag == "!!null" && !found:
			return errors.New("a patch takes away " + name.Value + ", which is not there")
		case with.Tag == "!!null":
			into.Content = slices.Delete(into.Content, at, at+2)
		case !found:
			into.Content = append(into.Content, name, with)
		case with.Kind == yaml.MappingNode && into.Content[at+1].Kind == yaml.MappingNode:
			if err := merge(into.Content[at+1], with); err != nil {
				return err
			}
		default:
			into.Content[at+1] = with
		}
	}
	return nil
}

func TestEachVersionsDocumentIsServed(t *testing.T) {
	w := newWorld(t)
	for _, v := range versions {
		a := w.do("GET", "/openapi.yaml?version="+v.date, "", "")
		tag := a.header.Get("ETag")
		if a.status != 200 || a.body != string(v.contract.plain()) || !strings.HasPrefix(tag, `"`+v.contract.etag) || !strings.Contains(a.body, "version: '"+v.date+"'") {
			t.Errorf("%s: %d, %d bytes", v.date, a.status, len(a.body))
		}
		if a := w.do("GET", "/openapi.yaml", "", "", in(v.date)...); a.body != string(v.contract.plain()) {
			t.Errorf("%s, asked for by header: %d bytes", v.date, len(a.body))
		}
		if a := w.do("GET", "/openapi.yaml?version="+v.date, "", "", "If-None-Match", tag); a.status != 304 {
			t.Errorf("%s, known: %d", v.date, a.status)
		}
	}
	w.refused("unknown", w.do("GET", "/openapi.yaml?version=2026-11-02", "", ""), 400, payment.CodeInvalid)
}

// An answer goes through a change and back without anything else becoming another.
func TestARewrittenAnswerIsTheSameToTheByte(t *testing.T) {
	for _, text := range []string{
		`{}`, `[]`, `null`, `"x"`, `{"a":1.50,"b":[{"c":{}},[],"\u00e9é\"\\/"],"object":"list"}`, `{"n":12345678901234567890,"z":-0,"e":1E400}`,
	} {
		same, err := rewritten([]byte(text), func(o object) (object, error) { return o, nil })
		if err != nil || string(same) != text {
			t.Errorf("%s became %s, %v", text, same, err)
		}
	}
	const kept = `{"object":"list","data":[{"id":"ref_1","object":"refund","failure_code":"x","created_at":"y"},{"object":"refund","failure_code":null},{"object":"other","failure_code":null}]}`
	up, err := newest([]byte(kept), len(versions)-1)
	if err != nil || string(up) != `{"object":"list","data":[{"id":"ref_1","object":"refund","failure":{"code":"x"},"created_at":"y"},{"object":"refund","failure":null},{"object":"other","failure_code":null}]}` {
		t.Errorf("%s, %v", up, err)
	}
	if down, err := older(up, len(versions)-1); err != nil || string(down) != kept {
		t.Errorf("%s, %v", down, err)
	}
	for _, broken := range []string{``, `{`, `{"a"`, `[1,`, `{"object":"refund","failure_code":{}}`} {
		if got, err := newest([]byte(broken), len(versions)-1); err == nil {
			t.Errorf("%s became %s", broken, got)
		}
	}
}
