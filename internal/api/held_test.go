package api

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/access"
	"payments/internal/payment"
	"payments/internal/readmodel"
)

// gate holds what the read model is asked for, until the test lets it go.
type gate struct {
	*readmodel.Queries
	arrived chan struct{}
	open    chan struct{}
}

func newGate(w *world) *gate {
	return &gate{readmodel.NewQueries(w.pool), make(chan struct{}, 100), make(chan struct{})}
}

func (g *gate) pass(ctx context.Context) {
	g.arrived <- struct{}{}
	select {
	case <-g.open:
	case <-ctx.Done():
	}
}

func (g *gate) AwaitPosition(ctx context.Context, scope access.Scope, at readmodel.Position) error {
	g.pass(ctx)
	return g.Queries.AwaitPosition(ctx, scope, at)
}

// List holds an export, so that it is under way for as long as the test wants.
func (g *gate) List(ctx context.Context, scope access.Scope, f readmodel.Filter) (readmodel.Page, error) {
	if f.Limit == exportPage {
		g.pass(ctx)
	}
	return g.Queries.List(ctx, scope, f)
}

// held serves with a gate and few slots.
func (w *world) held(l HeldLimits) *gate {
	g := newGate(w)
	w.api.Payments, w.api.Held, w.api.Registerer = g, l, prometheus.NewRegistry()
	w.server = w.serve(w.api)
	return g
}

func TestReadAfterWaitsAreBoundedForEachMerchant(t *testing.T) {
	w := newWorld(t)
	g := w.held(HeldLimits{WaitsOfMerchant: 3})
	placed := w.post(w.merchant, good, key("k-1")...)
	path, token := placed.header.Get("Location"), placed.header.Get("Read-After")
	other := w.post(w.other, good, key("k-1")...)
	paths := []string{path, path + "/timeline", path + "/refunds", "/v1/payments", path + "/events"}
	var waiting []<-chan answer
	for i, apiKey := range []string{w.merchant, w.reader, w.merchant} { // keys of one merchant share its slots
		waiting = append(waiting, w.reading(paths[i], apiKey, after(token)...))
		<-g.arrived
	}
	for _, p := range paths {
		for _, apiKey := range []string{w.merchant, w.reader} {
			a := w.do("GET", p, apiKey, "", after(token)...)
			if w.refused(p, a, 429, codeTooManyHeld); a.header.Get("Retry-After") != "1" {
				t.Errorf("%s: headers %v", p, a.header)
			}
		}
	}
	// Without a wait nothing is refused, and another merchant waits beside it.
	if a := w.do("GET", "/v1/payments", w.merchant, ""); a.status != 200 {
		t.Errorf("a read that need not wait: %d %s", a.status, a.body)
	}
	waiting = append(waiting, w.reading("/v1/payments", w.other, after(other.header.Get("Read-After"))...))
	<-g.arrived
	w.project()
	if a := w.do("GET", path, w.merchant, "", after(token)...); a.status != 200 {
		t.Errorf("a read of what is projected by now: %d %s", a.status, a.body)
	}
	close(g.open)
	for _, got := range waiting {
		if a := <-got; a.status != 200 {
			t.Errorf("a read that waited: %d %s", a.status, a.body)
		}
	}
	if a := <-w.reading("/v1/payments", w.merchant, after(token)...); a.status != 200 {
		t.Errorf("after the waits: %d %s", a.status, a.body)
	}
}

// A payment is found from its POST on, whatever the projector does, and so is all that is under it.
func TestAPaymentThatIsNotProjectedIsFound(t *testing.T) {
	w := newWorld(t)
	g := w.held(HeldLimits{WaitsOfMerchant: 4})
	placed := w.post(w.merchant, good, key("k-1")...)
	path, token := placed.header.Get("Location"), placed.header.Get("Read-After")
	a := w.do("GET", path, w.merchant, "")
	if a.status != 200 || a.body != placed.body || a.header.Get("Read-After") != token {
		t.Errorf("%d %s with Read-After %q, want the POST's %s and %q", a.status, a.body, a.header.Get("Read-After"), placed.body, token)
	}
	if a := w.do("GET", path, w.auditor, ""); a.status != 200 || strings.Contains(a.body, "ada@example.com") || strings.Contains(a.body, "pm_card_visa") {
		t.Errorf("the auditor sees %d %s", a.status, a.body)
	}
	for _, key := range []string{w.other, ""} {
		want := map[string]int{w.other: 404, "": 401}[key]
		for _, p := range []string{path, path + "/timeline", path + "/refunds", path + "/events"} {
			if a := w.do("GET", p, key, ""); a.status != want || a.header.Get("Read-After") != "" {
				t.Errorf("%s by another: %d %s", p, a.status, a.body)
			}
		}
	}
	// What the read model alone knows is waited for, in slots.
	parts := []string{path + "?expand=timeline", path + "/timeline", path + "/refunds"}
	var waiting []<-chan answer
	for _, p := range parts {
		waiting = append(waiting, w.reading(p, w.merchant))
		<-g.arrived
	}
	stream := make(chan *reading, 1)
	go func() { stream <- w.follow(path+"/events", w.merchant, "") }()
	<-g.arrived
	w.refused("one too many", w.do("GET", path+"/timeline", w.reader, ""), 429, codeTooManyHeld)
	for _, id := range []string{w.ids.New(payment.PrefixPayment), "pay_1"} { // which nobody made: there is nothing to wait for
		for _, p := range []string{"", "?expand=timeline", "/timeline", "/refunds", "/events"} {
			w.refused("an id of nothing", w.do("GET", "/v1/payments/"+id+p, w.merchant, ""), 404, payment.CodeNotFound)
		}
	}
	w.project()
	close(g.open)
	for i, got := range waiting {
		if a := <-got; a.status != 200 || i < 2 && !strings.Contains(a.body, `"order.placed"`) {
			t.Errorf("%s: %d %s", parts[i], a.status, a.body)
		}
	}
	(<-stream).events(1)
	if a := w.do("GET", path, w.merchant, ""); a.status != 200 || a.body != placed.body || a.header.Get("Read-After") != "" {
		t.Errorf("once it is projected: %d %s %v", a.status, a.body, a.header)
	}
}

func TestExportsAreBoundedForEachMerchant(t *testing.T) {
	w := newWorld(t)
	w.placedAs("A-1")
	g := w.held(HeldLimits{Exports: 5, ExportsOfMerchant: 2})
	csv := []string{"Accept", "text/csv"}
	var exports []<-chan answer
	for _, apiKey := range []string{w.merchant, w.reader} {
		exports = append(exports, w.reading("/v1/payments", apiKey, csv...))
		<-g.arrived
	}
	for _, apiKey := range []string{w.merchant, w.reader} {
		a := w.do("GET", "/v1/payments", apiKey, "", csv...)
		if w.refused("one too many", a, 429, codeTooManyHeld); a.header.Get("Retry-After") != "1" {
			t.Errorf("headers %v", a.header)
		}
	}
	if a := w.do("GET", "/v1/payments", w.merchant, ""); a.status != 200 {
		t.Errorf("a list that is no export: %d %s", a.status, a.body)
	}
	exports = append(exports, w.reading("/v1/payments", w.other, csv...), w.reading("/v1/payments", w.auditor, csv...))
	<-g.arrived
	<-g.arrived
	w.refused("all but one are under way, and one is the merchant's", w.do("GET", "/v1/payments", w.other, "", csv...), 429, codeTooManyHeld)
	close(g.open)
	for _, got := range exports {
		if a := <-got; a.status != 200 || !strings.HasPrefix(a.body, "id,status") {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	for w.holds(heldExport) != 0 { // the slot is given back after the last byte
		runtime.Gosched()
	}
	if a := w.do("GET", "/v1/payments", w.merchant, "", csv...); a.status != 200 {
		t.Errorf("after them: %d %s", a.status, a.body)
	}
}

// A client that hangs up gives its slot back at once.
func TestASlotEndsWithItsClient(t *testing.T) {
	w := newWorld(t)
	g := w.held(HeldLimits{WaitsOfMerchant: 1})
	token := w.post(w.merchant, good, key("k-1")...).header.Get("Read-After")
	for range 3 { // each finds the one slot free
		ctx, hangUp := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.server.URL+"/v1/payments", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+w.merchant)
		r.Header.Set("Read-After", token)
		ended := make(chan error)
		go func() {
			resp, err := w.server.Client().Do(r)
			if err == nil {
				resp.Body.Close()
			}
			ended <- err
		}()
		<-g.arrived
		if n := w.holds(heldWait); n != 1 {
			t.Errorf("%v waits are held, want 1", n)
		}
		hangUp()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the client that hung up got %v", err)
		}
		for w.holds(heldWait) != 0 { // until the service has seen it
			runtime.Gosched()
		}
	}
}

// holds is how many requests of the kind are held by now.
func (w *world) holds(kind heldKind) float64 {
	w.t.Helper()
	families, err := w.api.Registerer.(*prometheus.Registry).Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "payments_http_held_requests" && m.GetLabel()[0].GetValue() == string(kind) {
				return m.GetGauge().GetValue()
			}
		}
	}
	w.t.Fatal("the gauge is missing")
	return 0
}
