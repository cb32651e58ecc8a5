package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"payments/internal/access"
	"payments/internal/inbox"
	"payments/internal/payment"
	"payments/internal/readmodel"
)

// sse is an event of a stream; comments are told by their text alone.
type sse struct{ id, event, data, comment string }

// payment and sequence of its data, as "pay_… 3".
func (e sse) what(t *testing.T) string {
	t.Helper()
	a := answer{body: e.data}
	return fmt.Sprint(a.at(t, "data.payment_id"), " ", a.at(t, "data.sequence"))
}

type reading struct {
	t     *testing.T
	resp  *http.Response
	lines *bufio.Reader
	start string // the id before the first event
	close func()
}

// reopen serves anew, with streams of other bounds.
func (w *world) reopen(c StreamsConfig) {
	w.t.Helper()
	w.api.Streams, w.api.Registerer = w.streams(w.pool, c), prometheus.NewRegistry()
	w.server = w.serve(w.api)
}

// follow opens a stream, which has to answer 200 as the document says.
func (w *world) follow(path, key, lastEventID string) *reading {
	w.t.Helper()
	return w.followBy(w.server.Client(), path, key, lastEventID)
}

func (w *world) followBy(client *http.Client, path, key, lastEventID string) *reading {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.server.URL+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Accept-Encoding", "gzip") // so that nothing is compressed is our doing
	if lastEventID != "" {
		r.Header.Set("Last-Event-ID", lastEventID)
	}
	resp, err := client.Do(r) //nolint:bodyclose // reading.close does
	if err != nil {
		w.t.Fatal(err)
	}
	s := &reading{t: w.t, resp: resp, lines: bufio.NewReader(resp.Body), close: func() {
		cancel()
		_ = resp.Body.Close()
	}}
	w.t.Cleanup(s.close)
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		w.t.Fatalf("%s: %d %s", path, resp.StatusCode, b)
	}
	if err := w.checked().Versions.Check(http.MethodGet, r.URL.Path, resp.StatusCode, resp.Header, nil); err != nil {
		w.t.Error(err)
	}
	if h := resp.Header; h.Get("Cache-Control") != "no-store" || h.Get("Content-Encoding") != "" || h.Get("X-Accel-Buffering") != "no" {
		w.t.Errorf("header %v", h)
	}
	first, err := s.next()
	if err != nil || first.id == "" || first.data != "" {
		w.t.Fatalf("the stream begins with %+v, %v", first, err)
	}
	s.start = first.id
	return s
}

// next is io.EOF when the stream has ended as it should.
func (s *reading) next() (e sse, err error) {
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return e, err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "\n":
			return e, nil
		case name == "":
			e.comment = ":"
		case name == "id":
			e.id = value
		case name == "event":
			e.event = value
		case name == "data":
			e.data = value
		}
	}
}

func (s *reading) events(n int) []sse {
	s.t.Helper()
	var all []sse
	for len(all) < n {
		e, err := s.next()
		if err != nil {
			s.t.Fatalf("after %d of %d events: %v", len(all), n, err)
		}
		if e.comment != "" {
			continue
		}
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(e.data))
		if err == nil {
			err = document(s.t).Validate("/components/schemas/Event", value)
		}
		if err != nil || e.event != (answer{body: e.data}).at(s.t, "type") {
			s.t.Errorf("%+v: %v", e, err)
		}
		all = append(all, e)
	}
	return all
}

func (s *reading) whats(n int) (all []string) {
	s.t.Helper()
	for _, e := range s.events(n) {
		all = append(all, e.what(s.t))
	}
	return all
}

// ends reads what is left, which may be comments alone.
func (s *reading) ends() {
	s.t.Helper()
	for {
		e, err := s.next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil || e.comment == "" {
			s.t.Fatalf("the stream goes on with %+v, %v", e, err)
		}
	}
}

// place posts the good payment with an order reference of its own.
func (w *world) place(apiKey, reference string) answer {
	w.t.Helper()
	a := w.post(apiKey, strings.ReplaceAll(good, "A-1001", reference), key(reference)...)
	if a.status != http.StatusAccepted {
		w.t.Fatalf("%d %s", a.status, a.body)
	}
	return a
}

// fail places orders and applies both events of each, one transaction an event.
func (w *world) fail(n int, from string) (what []string) {
	w.t.Helper()
	for i := range n {
		placed := w.place(w.merchant, fmt.Sprint(from, i))
		w.project()
		w.project(w.declined(placed))
		id := placed.at(w.t, "id").(string)
		what = append(what, id+" 1", id+" 2")
	}
	return what
}

func TestAStreamGoesOnBehindEachOfItsEvents(t *testing.T) {
	w := newWorld(t)
	feed := w.follow("/v1/events", w.merchant, "")
	want := w.fail(3, "R-")
	id, _, _ := strings.Cut(want[0], " ")
	for path, want := range map[string][]string{"/v1/events": want, "/v1/payments/" + id + "/events": want[:2]} {
		ids := []string{feed.start}
		if path != "/v1/events" {
			ids[0] = w.follow(path, w.merchant, "").start
		}
		for _, e := range w.follow(path, w.merchant, ids[0]).events(len(want)) {
			ids = append(ids, e.id)
		}
		var open []*reading
		for i, from := range ids {
			s := w.follow(path, w.merchant, from)
			if s.start != from {
				t.Errorf("%s behind event %d begins at another place", path, i)
			}
			if got := s.whats(len(want) - i); fmt.Sprint(got) != fmt.Sprint(want[i:]) {
				t.Errorf("%s behind event %d: %q, want %q", path, i, got, want[i:])
			}
			open = append(open, s)
		}
		w.api.Streams.Drain()
		for _, s := range open {
			s.ends() // and there was nothing more
		}
		w.reopen(StreamsConfig{})
	}
}

// A payment's stream has all its events without being asked where to begin; the feed
// has what comes.
func TestAStreamTellsOfEventsAsTheyHappen(t *testing.T) {
	w := newWorld(t)
	before := w.fail(1, "B-")
	feed := w.follow("/v1/events", w.merchant, "")
	placed := w.place(w.merchant, "A-1001")
	id := placed.at(t, "id").(string)
	w.project()
	single := w.follow("/v1/payments/"+id+"/events", w.merchant, "")
	if got := single.whats(1); got[0] != id+" 1" {
		t.Errorf("%q", got)
	}
	w.project(w.declined(placed))
	if got := single.events(1)[0]; got.what(t) != id+" 2" || got.event != "order.failed" || (answer{body: got.data}).at(t, "data.failure.code") != "card_declined" {
		t.Errorf("%+v", got)
	}
	if got := feed.whats(2); fmt.Sprint(got) != fmt.Sprint([]string{id + " 1", id + " 2"}) {
		t.Errorf("the feed has %q, and began behind %q", got, before)
	}
	if n := testutil.ToFloat64(w.api.Streams.opened.WithLabelValues("/v1/events")); n != 1 {
		t.Errorf("%v feeds are open", n)
	}
}

// Four projectors at once, whose transactions overlap, and a reader who is cut off
// after every few events: it gets each event once, and each payment's in order.
func TestAFeedThatIsCutOffLosesNothingOfConcurrentProjectors(t *testing.T) {
	const projectors, orders = 4, 30
	w := newWorld(t)
	from := w.follow("/v1/events", w.merchant, "").start
	var batches [projectors][][]inbox.Message
	for p := range batches {
		for i := range orders {
			placed := w.place(w.merchant, fmt.Sprintf("C-%d-%d", p, i))
			batches[p] = append(batches[p], w.published(placed.at(t, "order.id").(string)), []inbox.Message{w.declined(placed)})
		}
	}
	var working sync.WaitGroup
	for _, mine := range batches {
		working.Go(func() {
			for _, batch := range mine {
				if err := w.handle(batch...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	last := map[string]int{}
	for n := 0; n < projectors*orders*2; {
		s := w.follow("/v1/events", w.merchant, from)
		for range min(7, projectors*orders*2-n) {
			e := s.events(1)[0]
			var id string
			var sequence int
			if _, err := fmt.Sscan(e.what(t), &id, &sequence); err != nil || sequence != last[id]+1 {
				t.Fatalf("%s comes behind sequence %d: %v", e.what(t), last[id], err)
			}
			last[id], from = sequence, e.id
			n++
		}
		s.close()
	}
	working.Wait()
	s := w.follow("/v1/events", w.merchant, from)
	w.api.Streams.Drain()
	s.ends()
}

func TestAnotherMerchantsEventsAreNotThere(t *testing.T) {
	w := newWorld(t)
	feed, others := w.follow("/v1/events", w.merchant, ""), w.follow("/v1/events", w.other, "")
	operators := w.follow("/v1/events?merchant="+w.merchantID, w.operator, "")
	mine := w.fail(1, "M-")
	id, _, _ := strings.Cut(mine[0], " ")
	single := w.follow("/v1/payments/"+id+"/events", w.reader, "")
	_ = w.place(w.other, "A-1001")
	w.project()
	again := w.fail(1, "N-")
	for what, s := range map[string]*reading{"merchant": feed, "operator": operators} {
		if got := s.whats(4); fmt.Sprint(got) != fmt.Sprint(append(mine, again...)) {
			t.Errorf("the %s's feed has %q", what, got)
		}
	}
	if got := single.whats(2); fmt.Sprint(got) != fmt.Sprint(mine) {
		t.Errorf("the payment's has %q", got)
	}
	theirs := others.events(1)[0]
	if strings.Contains(fmt.Sprint(mine, again), strings.Fields(theirs.what(t))[0]) {
		t.Errorf("the other merchant sees %s", theirs.what(t))
	}
	for what, a := range map[string]answer{
		"another's payment": w.do("GET", "/v1/payments/"+id+"/events", w.other, ""),
		"another's feed":    w.do("GET", "/v1/events?merchant="+w.merchantID, w.other, ""),
	} {
		w.refused(what, a, 404, payment.CodeNotFound)
	}
	w.refused("everybody's feed", w.do("GET", "/v1/events", w.operator, ""), 400, payment.CodeInvalid)
	for what, a := range map[string]answer{
		"another's id":          w.do("GET", "/v1/events", w.merchant, "", "Last-Event-Id", theirs.id),
		"the feed's id":         w.do("GET", "/v1/payments/"+id+"/events", w.merchant, "", "Last-Event-Id", feed.start),
		"a changed id":          w.do("GET", "/v1/events", w.merchant, "", "Last-Event-Id", feed.start[:len(feed.start)-1]),
		"an id that is nothing": w.do("GET", "/v1/events", w.merchant, "", "Last-Event-Id", "12"),
	} {
		w.refused(what, a, 400, codeLastEventIDInvalid)
	}
	w.refused("no key", w.do("GET", "/v1/events", "", ""), 401, payment.CodeUnauthenticated)
	if a := w.do("HEAD", "/v1/events", w.merchant, ""); a.status != 200 || a.header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD: %d %v", a.status, a.header)
	}
	w.api.Streams.Drain()
	for _, s := range []*reading{feed, others, operators, single} {
		s.ends() // with nothing more of anybody's
	}
}

func TestAStreamEndsWithItsKeyAndNoOther(t *testing.T) {
	w := newWorld(t)
	revoked, stays := w.follow("/v1/events", w.reader, ""), w.follow("/v1/events", w.merchant, "")
	expired := w.follow("/v1/events?merchant="+w.merchantID, w.support, "")
	keyID := func(key string) string { return payment.PrefixKey + "_" + key[len("sk_test_"):][:26] }
	if _, err := w.api.Keys.Revoke(t.Context(), access.By{Source: access.SourceCommandLine, Origin: "the test"}, keyID(w.reader)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.pool.Exec(t.Context(), `UPDATE api_keys SET expires_at = now() WHERE id = $1`, keyID(w.support)); err != nil {
		t.Fatal(err)
	}
	revoked.ends()
	expired.ends()
	want := w.fail(1, "K-")
	if got := stays.whats(2); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q", got)
	}
	w.refused("again", w.do("GET", "/v1/events", w.reader, ""), 401, payment.CodeUnauthenticated)
	if n := testutil.ToFloat64(w.api.Streams.ended.WithLabelValues("key")); n != 2 {
		t.Errorf("%v streams ended with their key", n)
	}
}

func TestEventsThatAreNoLongerKeptAreToldSo(t *testing.T) {
	w := newWorld(t)
	feed := w.follow("/v1/events", w.merchant, "")
	_ = w.fail(1, "O-")
	ids := []string{feed.start}
	for _, e := range feed.events(2) {
		ids = append(ids, e.id)
	}
	if _, err := w.pool.Exec(t.Context(), `UPDATE feed_events SET fed_at = now() - interval '8 days' WHERE position = 1`); err != nil {
		t.Fatal(err)
	}
	if _, err := readmodel.ReapFeeds(t.Context(), w.pool, 7*24*time.Hour, 100); err != nil {
		t.Fatal(err)
	}
	w.refused("behind what is kept", w.do("GET", "/v1/events", w.merchant, "", "Last-Event-Id", ids[0]), 410, codeEventsExpired)
	if got := w.follow("/v1/events", w.merchant, ids[1]).events(1); got[0].id != ids[2] {
		t.Errorf("%+v", got)
	}
}
