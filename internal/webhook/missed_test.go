package webhook

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"payments/internal/inbox"
	"payments/internal/payment"
)

func (w *world) listener(status int) (url string, got *atomic.Int64) {
	got = &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		got.Add(1)
		rw.WriteHeader(status)
	}))
	w.t.Cleanup(s.Close)
	return s.URL, got
}

// The role webhooks is taken into service, or its database made anew, on a topic that keeps more than
// PAYMENTS_INBOX_KEEP (PAYMENTS_KAFKA_RETENTION goes up to 876000h): it begins at the topic's first event.
func TestAnOldOrderOnAnOldTopicHoldsUpNoneOfItsNews(t *testing.T) {
	w := newWorld(t)
	if err := inbox.Maintain(t.Context(), w.pool, time.Now(), 720*time.Hour); err != nil { // the start of the service
		t.Fatal(err)
	}
	url, got := w.listener(200)
	w.endpoint(w.merchantID, url)
	order := w.ids.New(payment.PrefixOrder)
	of := func(d *payment.EventData) { d.OrderID = order }
	old := w.message(w.merchantID, payment.EventOrderPlaced, 1, of)
	long := payment.Generator{Now: func() time.Time { return time.Now().Add(-40 * 24 * time.Hour) }, Random: rand.Reader}
	old.Headers["ce_id"], old.Headers["ce_time"] = long.New(payment.PrefixEvent), time.Now().Add(-40*24*time.Hour).UTC().Format(time.RFC3339Nano)
	w.apply(old)
	w.apply(w.message(w.merchantID, payment.EventRefundSucceeded, 7, of)) // today
	w.turn(w.dispatcher())
	if got.Load() != 1 {
		t.Errorf("today's refund.succeeded was posted %d times; %d keys with %d dead letters are blocked", got.Load(),
			value[int](w, `SELECT count(*) FROM inbox_parked_keys`), value[int](w, `SELECT count(*) FROM inbox_parked`))
	}
}

// "A disabled endpoint gets no new deliveries; those that were pending wait for `enable`."
func TestWhatWaitsForEnableIsNotReaped(t *testing.T) {
	w := newWorld(t)
	url, got := w.listener(500)
	e := w.endpoint(w.merchantID, url)
	w.happens(w.merchantID, payment.EventPaymentCaptured)
	w.turn(w.dispatcher())
	w.exec(`UPDATE webhook_endpoints SET disabled_at = now() - interval '28 days', disabled_reason = 'failing'`)
	w.exec(`UPDATE webhook_deliveries SET created_at = now() - interval '31 days'`) // 31 days later
	w.reap()
	if _, err := w.store.Enable(t.Context(), w.merchantID, e.ID); err != nil {
		t.Fatal(err)
	}
	w.pass()
	w.turn(w.dispatcher())
	if got.Load() != 2 || len(w.log(e)) != 1 {
		t.Errorf("it was pending when the endpoint was disabled; after enable it was posted %d times (1 before), the log has %d", got.Load(), len(w.log(e)))
	}
}

func (w *world) reap() {
	w.t.Helper()
	for again := true; again; {
		var err error
		if again, err = Reap(w.t.Context(), w.pool); err != nil {
			w.t.Fatal(err)
		}
	}
}

// "an endpoint gets what happens after it was made." order.placed has the API process's clock (order.Service.Place), and
// created_at the database's.
func TestClocksOfTwoMachinesLoseNoWebhook(t *testing.T) {
	for name, ahead := range map[string]time.Duration{
		"an API process six seconds behind": -6 * time.Second, "an API process 25 seconds behind": -25 * time.Second, "an API process an hour ahead": time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			url, got := w.listener(200)
			w.endpoint(w.merchantID, url)
			placed := w.message(w.merchantID, payment.EventOrderPlaced, 1) // afterwards
			placed.Headers["ce_time"] = time.Now().Add(ahead).UTC().Format(time.RFC3339Nano)
			w.apply(placed)
			w.turn(w.dispatcher())
			if got.Load() != 1 {
				t.Errorf("posted %d times", got.Load())
			}
		})
	}
}

// The database's clock is set back by an hour after the endpoint was made.
func TestAnEndpointGetsEventsAfterTheClockWentBack(t *testing.T) {
	w := newWorld(t)
	url, got := w.listener(200)
	w.endpoint(w.merchantID, url)
	w.exec(`UPDATE webhook_endpoints SET created_at = created_at + interval '1 hour'`) // = the clock goes back by one
	d := w.dispatcher()
	if _, err := d.Measure(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	w.turn(d)
	if got.Load() != 1 {
		t.Errorf("posted %d times", got.Load())
	}
}

// What happened while the endpoint was disabled, and what failed, is delivered when the
// merchant asks for it: once, in the range, and nothing of another endpoint's.
func TestMissedEventsAreRedeliveredByRange(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, nil)
	e := w.endpoint(w.merchantID, r.URL, string(payment.EventOrderConfirmed))
	other := w.endpoint(w.merchantID, r.URL+"/other")
	w.exec(`UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = 'failing'`)
	var events []string
	for day := range 4 {
		m := w.message(w.merchantID, payment.EventOrderConfirmed, 2)
		events = append(events, m.Headers["ce_id"])
		w.apply(m, w.message(w.merchantID, payment.EventPaymentVoided, 2))
		w.exec(`UPDATE webhook_missed SET missed_at = $2 WHERE event_id = $1`, m.Headers["ce_id"], time.Date(2026, 11, 1+day, 12, 0, 0, 0, time.UTC))
	}
	day := func(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }
	if _, err := w.store.RedeliverRange(t.Context(), w.merchantID, e.ID, Range{}); code(err) != payment.CodeWebhookDisabled {
		t.Errorf("while it is disabled: %v", err)
	}
	if _, err := w.store.Enable(t.Context(), w.merchantID, e.ID); err != nil {
		t.Fatal(err)
	}
	w.turn(w.dispatcher())
	if n := len(r.all()); n != 0 || len(w.log(e)) != 0 {
		t.Errorf("%d were posted before they were asked for", n)
	}
	redeliver := func(in Range) Redelivered {
		t.Helper()
		done, err := w.store.RedeliverRange(t.Context(), w.merchantID, e.ID, in)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	if done := redeliver(Range{From: day(2), To: day(4)}); done != (Redelivered{Missed: 2}) {
		t.Errorf("in the range: %+v", done)
	}
	w.turn(w.dispatcher())
	if got := w.eventsOf(r.all()); len(got) != 2 || got[events[1]] != 1 || got[events[2]] != 1 {
		t.Errorf("posted %v", got)
	}
	if done := redeliver(Range{From: day(2), To: day(4)}); done != (Redelivered{}) {
		t.Errorf("a repetition: %+v", done)
	}
	// Of what was delivered one had failed.
	w.exec(`UPDATE webhook_deliveries SET state = 'failed' WHERE event_id = $1`, events[1])
	if done := redeliver(Range{}); done != (Redelivered{Missed: 2, Failed: 1}) {
		t.Errorf("the rest: %+v", done)
	}
	w.turn(w.dispatcher())
	if got := w.eventsOf(r.all()); len(got) != 4 || got[events[1]] != 2 || got[events[0]] != 1 || got[events[3]] != 1 {
		t.Errorf("posted %v", got)
	}
	if n := value[int](w, `SELECT count(*) FROM webhook_missed WHERE endpoint_id = $1`, other.ID); n != 8 {
		t.Errorf("%d events are missed by the other endpoint, want 8", n)
	}
	for name, c := range map[string]struct {
		merchant, endpoint string
		in                 Range
		want               payment.Code
	}{
		"another's":       {w.otherID, e.ID, Range{}, payment.CodeNotFound},
		"no id":           {w.merchantID, "whe_x", Range{}, payment.CodeNotFound},
		"an empty range":  {w.merchantID, e.ID, Range{From: day(2), To: day(2)}, payment.CodeInvalid},
		"ends too early":  {w.merchantID, e.ID, Range{From: day(2), To: day(1)}, payment.CodeInvalid},
		"still disabled ": {w.merchantID, other.ID, Range{From: day(1)}, payment.CodeWebhookDisabled},
	} {
		if _, err := w.store.RedeliverRange(t.Context(), c.merchant, c.endpoint, c.in); code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What nobody asks for is forgotten after Retention.
	w.exec(`UPDATE webhook_missed SET missed_at = now() - interval '31 days' WHERE event_type = 'order.confirmed'`)
	w.reap()
	if n := value[int](w, `SELECT count(*) FROM webhook_missed`); n != 4 {
		t.Errorf("%d missed events are kept, want 4", n)
	}
}

// More than a step are taken by repeating the request.
func TestARedeliveryGoesOnUntilNothingIsLeft(t *testing.T) {
	w := newWorld(t)
	e := w.endpoint(w.merchantID, "http://127.0.0.1:9999/")
	w.exec(`INSERT INTO webhook_missed (merchant_id, endpoint_id, event_id, event_type, payment_id, body)
		SELECT $1, $2, 'evt_' || n, 'order.confirmed', 'p', '{}' FROM generate_series(1, $3) n`, w.merchantID, e.ID, 2*redeliverStep+1)
	for _, want := range []Redelivered{{Missed: redeliverStep, More: true}, {Missed: redeliverStep, More: true}, {Missed: 1}} {
		if done, err := w.store.RedeliverRange(t.Context(), w.merchantID, e.ID, Range{}); err != nil || done != want {
			t.Fatalf("%+v, %v; want %+v", done, err, want)
		}
	}
	if n := value[int](w, `SELECT count(DISTINCT event_id) FROM webhook_deliveries WHERE state = 'pending'`); n != 2*redeliverStep+1 {
		t.Errorf("%d deliveries are pending", n)
	}
}

// An event that comes while its endpoint is being enabled is delivered or can be asked for,
// whichever of the two commits first.
func TestAnEventBesideEnableIsNotLost(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, nil)
	e := w.endpoint(w.merchantID, r.URL)
	w.exec(`UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = 'failing'`)
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	// Enable is about to commit, and the event has to wait for it.
	if _, err := tx.Exec(t.Context(), `UPDATE webhook_endpoints SET disabled_at = NULL, disabled_reason = NULL`); err != nil {
		t.Fatal(err)
	}
	m := w.message(w.merchantID, payment.EventOrderConfirmed, 2)
	applied := make(chan error)
	go func() {
		_, err := w.inbox.Apply(t.Context(), 1, []inbox.Message{m})
		applied <- err
	}()
	for value[int](w, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 0 {
		select {
		case err := <-applied:
			t.Fatalf("the event did not wait for the endpoint: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-applied; err != nil {
		t.Fatal(err)
	}
	if log := w.log(e); len(log) != 1 || log[0].EventID != m.Headers["ce_id"] {
		t.Errorf("the log has %+v", log)
	}
}

// eventsOf counts what was received, by event.
func (w *world) eventsOf(all []received) map[string]int {
	w.t.Helper()
	count := map[string]int{}
	for _, r := range all {
		count[value[string](w, `SELECT event_id FROM webhook_deliveries WHERE id = $1`, r.id())]++
	}
	return count
}

// The database's clock is set back by an hour. What was due or leased then, waits for no hour.
func TestDeliveriesGoOnAfterTheClockWentBack(t *testing.T) {
	w := newWorld(t)
	url, got := w.listener(200)
	w.endpoint(w.merchantID, url)
	d := w.dispatcher()
	for _, state := range []string{`owner = NULL, tries = 0`, `owner = NULL, tries = 1, attempts = 1`, `owner = 'dead'`} {
		w.happens(w.merchantID, payment.EventOrderConfirmed)
		w.exec(`UPDATE webhook_deliveries SET due_at = due_at + interval '1 hour', ` + state + ` WHERE due_at IS NOT NULL`) // = the clock goes back
		before := got.Load()
		w.turn(d)
		if got.Load() != before {
			t.Fatalf("%s: it was posted, so that nothing had to be mended", state)
		}
		if _, err := d.Measure(t.Context()); err != nil {
			t.Fatal(err)
		}
		if wait := value[time.Duration](w, `SELECT max(due_at) - now() FROM webhook_deliveries`); wait > lease {
			t.Errorf("%s: it waits for %s", state, wait)
		}
		w.pass()
		w.turn(d)
		if got.Load() != before+1 {
			t.Errorf("%s: it was posted %d times", state, got.Load()-before)
		}
	}
	// A retry that waits for as long as it should is left alone.
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	w.exec(`UPDATE webhook_deliveries SET due_at = now() + interval '26 hours', tries = 9, attempts = 9 WHERE due_at IS NOT NULL`)
	if _, err := d.Measure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if wait := value[time.Duration](w, `SELECT max(due_at) - now() FROM webhook_deliveries`); wait < 25*time.Hour {
		t.Errorf("the last retry waits for %s only", wait)
	}
}
