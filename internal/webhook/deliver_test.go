package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"payments/internal/inbox"
	"payments/internal/payment"
)

func TestEventReachesEachEndpointThatAskedForIt(t *testing.T) {
	w := newWorld(t)
	all, some, none, other := newReceiver(t, nil), newReceiver(t, nil), newReceiver(t, nil), newReceiver(t, nil)
	e := w.endpoint(w.merchantID, all.URL)
	w.endpoint(w.merchantID, some.URL, "payment.captured", "order.failed")
	w.endpoint(w.merchantID, none.URL, "refund.failed")
	w.endpoint(w.otherID, other.URL)
	placed := w.message(w.merchantID, payment.EventOrderPlaced, 1, func(d *payment.EventData) {
		d.Placed = &payment.PlacedData{
			Amount: 4998, Currency: "EUR", PaymentMethod: "pm_card_visa", CaptureMethod: payment.CaptureManual, Reference: "A-1001",
			Customer: payment.Customer{Reference: "cust-42", EmailCiphertext: []byte("sealed")},
		}
	})
	captured := w.message(w.merchantID, payment.EventPaymentCaptured, 4, func(d *payment.EventData) {
		d.Captured = &payment.CapturedData{Provider: "acme", Operation: "op_s3cret", Amount: 4998}
		d.Attempts = []payment.AttemptData{{Number: 1, Step: "capture_payment"}}
	})
	w.apply(placed, captured)
	w.apply(captured) // delivered again by the broker
	w.turn(w.dispatcher())

	if len(all.all()) != 2 || len(some.all()) != 1 || len(none.all()) != 0 || len(other.all()) != 0 {
		t.Fatalf("received %d, %d, %d and %d", len(all.all()), len(some.all()), len(none.all()), len(other.all()))
	}
	verifier, err := standardwebhooks.NewWebhook(e.Secret)
	if err != nil {
		t.Fatal(err)
	}
	bodies := map[payment.EventType]string{}
	for _, r := range all.all() {
		if err := verifier.Verify(r.body, r.header); err != nil {
			t.Errorf("the specification's own library refuses the signature: %v", err)
		}
		var p Payload
		if err := json.Unmarshal(r.body, &p); err != nil {
			t.Fatal(err)
		}
		bodies[p.Type] = string(r.body)
		if !payment.ValidID(payment.PrefixDelivery, r.id()) || r.header.Get("Content-Type") != "application/json" {
			t.Errorf("headers %v", r.header)
		}
	}
	var ids payment.EventData
	if err := json.Unmarshal(placed.Value, &ids); err != nil {
		t.Fatal(err)
	}
	want := `{"type":"order.placed","timestamp":"` + placed.Headers["ce_time"] + `","data":{"event_id":"` + placed.Headers["ce_id"] +
		`","sequence":1,"payment_id":"` + ids.PaymentID + `","order_id":"` + ids.OrderID + `","status":"processing","amount":4998,"currency":"EUR",` +
		`"capture_method":"manual","order_reference":"A-1001","customer_reference":"cust-42"}}`
	if diff := cmp.Diff(want, bodies[payment.EventOrderPlaced]); diff != "" {
		t.Error(diff)
	}
	if b := bodies[payment.EventPaymentCaptured]; !strings.Contains(b, `"amount_captured":4998`) || strings.Contains(b, "s3cret") || strings.Contains(b, "attempts") {
		t.Errorf("body %s", b)
	}
	log := w.log(e)
	if len(log) != 2 || log[0].State != Succeeded || log[0].Attempts != 1 || len(log[0].Log) != 1 || log[0].Log[0].Status != 200 || log[0].SettledAt == nil {
		t.Errorf("log %+v", log)
	}
}

func TestAnEndpointGetsWhatComesAfterItAlone(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, nil)
	e := w.endpoint(w.merchantID, r.URL)
	w.exec(`UPDATE webhook_endpoints SET created_at = now() + interval '1 minute'`)
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	w.exec(`UPDATE webhook_endpoints SET created_at = now()`)
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	if n := len(w.log(e)); n != 1 {
		t.Errorf("%d deliveries, want that of the later event", n)
	}
}

func TestAnUnreadableEventIsADeadLetter(t *testing.T) {
	w := newWorld(t)
	m := w.message(w.merchantID, payment.EventOrderConfirmed, 2)
	m.Value = []byte(`{"merchant_id":"mer_x"}`)
	w.apply(m, w.message(w.merchantID, payment.EventOrderConfirmed, 2))
	if n := value[int](w, `SELECT count(*) FROM inbox_parked_keys WHERE consumer = 'webhooks'`); n != 1 {
		t.Errorf("%d keys are blocked", n)
	}
}

// A receiver that fails is asked again under the same id, with the same body and
// a fresh time, until it takes it.
func TestRetryKeepsTheID(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, nil)
	r.answers(503)
	e := w.endpoint(w.merchantID, r.URL)
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	clock := time.Now().Add(-time.Minute)
	d := w.dispatcher(func(c *Config) { c.Now = func() time.Time { clock = clock.Add(time.Second); return clock } })
	w.turn(d)
	w.turn(d) // not due yet
	if n := len(r.all()); n != 1 {
		t.Fatalf("%d attempts before the pause is over", n)
	}
	if w.get(e).FailingSince == nil {
		t.Error("the endpoint does not say that it fails")
	}
	w.pass()
	r.answers(204)
	w.turn(d)
	got := r.all()
	if len(got) != 2 || got[0].id() != got[1].id() || !bytes.Equal(got[0].body, got[1].body) {
		t.Fatalf("attempts %+v", got)
	}
	if got[0].header.Get(headerTimestamp) == got[1].header.Get(headerTimestamp) {
		t.Error("the second attempt has the first one's time")
	}
	log := w.log(e)[0]
	if log.State != Succeeded || log.Attempts != 2 || log.Log[0].Status != 503 || log.Log[0].Outcome != OutcomeRefused || log.Log[1].Status != 204 || log.ID != got[0].id() {
		t.Errorf("log %+v", log)
	}
	if w.get(e).FailingSince != nil {
		t.Error("the endpoint still fails")
	}
}

func TestScheduleTakesThreeDays(t *testing.T) {
	var least, most time.Duration
	for tries := 1; tries < Attempts; tries++ {
		p := pause(tries)
		if d := schedule[tries-1]; p < d*9/10 || p > d*11/10 {
			t.Errorf("the pause after try %d is %v, want %v less or more a tenth", tries, p, d)
		}
		least, most = least+schedule[tries-1]*9/10, most+schedule[tries-1]*11/10
	}
	if least < 66*time.Hour || most > 84*time.Hour {
		t.Errorf("all attempts take %v to %v, want about three days", least, most)
	}
	if pause(Attempts) != 0 {
		t.Error("there is an attempt after the last")
	}
}

func TestDeliveryFailsAfterItsLastAttempt(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, nil)
	r.answers(500)
	e := w.endpoint(w.merchantID, r.URL)
	d := w.dispatcher() // two exhausted deliveries in a row disable
	exhaust := func() {
		t.Helper()
		w.happens(w.merchantID, payment.EventOrderConfirmed)
		for range Attempts + 1 {
			w.turn(d)
			w.pass()
		}
	}
	exhaust()
	if log := w.log(e)[0]; log.State != Failed || log.Attempts != Attempts || log.DueAt != nil || len(r.all()) != Attempts {
		t.Fatalf("%d attempts, log %+v", len(r.all()), log)
	}
	// A success in between begins the count anew.
	r.answers(200)
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	w.turn(d)
	r.answers(500)
	exhaust()
	if got := w.get(e); got.DisabledReason != "" {
		t.Fatalf("disabled after deliveries that were not in a row: %+v", got)
	}
	exhaust()
	if got := w.get(e); got.DisabledReason != "failing" || got.DisabledAt == nil {
		t.Fatalf("not disabled: %+v", got)
	}
	if got := counter(t, d.metrics.disabledTotal.WithLabelValues("failing")); got != 1 {
		t.Errorf("%v endpoints were counted", got)
	}
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	if n := len(w.log(e)); n != 4 {
		t.Errorf("%d deliveries: a disabled endpoint gets no new ones", n)
	}
	if _, err := w.store.Redeliver(t.Context(), w.merchantID, e.ID, w.log(e)[0].ID); code(err) != payment.CodeWebhookDisabled {
		t.Errorf("redelivery to a disabled endpoint: %v", err)
	}
	if _, err := w.store.Enable(t.Context(), w.merchantID, e.ID); err != nil {
		t.Fatal(err)
	}
	r.answers(200)
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	w.turn(d)
	if log := w.log(e)[0]; log.State != Succeeded {
		t.Errorf("after it was enabled: %+v", log)
	}
}

func TestGoneDisablesTheEndpoint(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, nil)
	r.answers(410)
	e := w.endpoint(w.merchantID, r.URL)
	d := w.dispatcher(func(c *Config) { c.Concurrency = 1 })
	w.apply(w.message(w.merchantID, payment.EventOrderConfirmed, 2), w.message(w.merchantID, payment.EventOrderConfirmed, 2))
	for range 3 {
		w.turn(d)
		w.pass()
	}
	if n := len(r.all()); n != 1 {
		t.Errorf("%d attempts, want none behind the 410", n)
	}
	if got := w.get(e); got.DisabledReason != "gone" {
		t.Errorf("endpoint %+v", got)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	w := newWorld(t)
	target := newReceiver(t, nil)
	for _, status := range []int{301, 302, 303, 307, 308} {
		r := newReceiver(t, func(w http.ResponseWriter, q *http.Request) { http.Redirect(w, q, target.URL, status) })
		w.endpoint(w.merchantID, r.URL)
	}
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	w.turn(w.dispatcher())
	if n := len(target.all()); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
	if n := value[int](w, `SELECT count(*) FROM webhook_attempts WHERE outcome = 'refused' AND status BETWEEN 301 AND 308`); n != 5 {
		t.Errorf("%d attempts were refused, want 5", n)
	}
}

// An endpoint says that the connection is another protocol's from here on, and then
// nothing. Were that read, no deadline would end it: each such delivery would keep a slot
// of all merchants, again after each lease, and no process would ever end its drain.
func TestASwitchOfProtocolsKeepsNoSlot(t *testing.T) {
	w := newWorld(t)
	left := make(chan error, 1)
	r := newReceiver(t, func(rw http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: silence\r\n\r\n"); err != nil {
			t.Error(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(2 * attemptTimeout)); err != nil {
			t.Error(err)
		}
		_, err = conn.Read(make([]byte, 1))
		left <- err
	})
	e := w.endpoint(w.merchantID, r.URL)
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	w.turn(w.dispatcher())
	if err := <-left; !errors.Is(err, io.EOF) {
		t.Errorf("the dispatcher did not leave the connection: %v", err)
	}
	if log := w.log(e)[0]; log.Attempts != 1 || log.Log[0].Outcome != OutcomeRefused || log.Log[0].Status != http.StatusSwitchingProtocols {
		t.Errorf("log %+v", log)
	}
}

// net/http takes any three digits for a status. One that is none cannot be recorded, and
// with it failed the record of every delivery that ended at the same time.
func TestAStatusThatIsNoneIsRecorded(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, func(rw http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n"); err != nil {
			t.Error(err)
		}
	})
	e := w.endpoint(w.merchantID, r.URL)
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	w.turn(w.dispatcher())
	if log := w.log(e)[0]; log.Attempts != 1 || log.Log[0].Outcome != OutcomeRefused || log.Log[0].Status != 0 {
		t.Errorf("log %+v", log)
	}
}

// A process dies after the receiver has taken the delivery and before that is
// recorded: the next one delivers it again, under the same id.
func TestCrashBeforeTheRecordDeliversAgainUnderTheID(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, nil)
	e := w.endpoint(w.merchantID, r.URL)
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	w.turn(w.dispatcher(func(c *Config) { c.Crash = func() bool { return true } }))
	next := w.dispatcher()
	w.turn(next) // the dead one's lease holds
	if n := len(r.all()); n != 1 {
		t.Fatalf("%d attempts during the lease", n)
	}
	w.pass()
	w.turn(next)
	got := r.all()
	if len(got) != 2 || got[0].id() != got[1].id() {
		t.Fatalf("%d attempts", len(got))
	}
	if log := w.log(e)[0]; log.State != Succeeded || log.Attempts != 1 {
		t.Errorf("log %+v", log)
	}
}

// A dispatcher whose lease ended while its attempt was under way records nothing.
func TestZombieIsFenced(t *testing.T) {
	w := newWorld(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	first := true
	r := newReceiver(t, nil)
	r.answer = func(rw http.ResponseWriter, _ *http.Request) {
		r.mu.Lock()
		held := first
		first = false
		r.mu.Unlock()
		if held {
			close(arrived)
			<-release
			rw.WriteHeader(http.StatusInternalServerError)
		}
	}
	e := w.endpoint(w.merchantID, r.URL)
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	zombie, next := w.dispatcher(), w.dispatcher()
	if _, err := zombie.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-arrived
	w.pass() // its lease is over
	w.turn(next)
	close(release)
	zombie.Drain()
	log := w.log(e)[0]
	if log.State != Succeeded || log.Attempts != 1 || w.get(e).FailingSince != nil {
		t.Errorf("log %+v, endpoint %+v", log, w.get(e))
	}
	if got := counter(t, zombie.metrics.fenced); got != 1 {
		t.Errorf("%v records were fenced", got)
	}
}

// While one merchant's endpoint holds every attempt, another's gets all of its
// deliveries: the slow one is given perEndpoint slots and no more.
func TestSlowEndpointDelaysNobodyElse(t *testing.T) {
	w := newWorld(t)
	release, arrived := make(chan struct{}), make(chan struct{}, 100)
	slow := newReceiver(t, func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	})
	var end sync.Once
	t.Cleanup(func() { end.Do(func() { close(release) }) })
	quick := newReceiver(t, nil)
	slowly, quickly := w.endpoint(w.merchantID, slow.URL), w.endpoint(w.otherID, quick.URL)
	var batch []inbox.Message
	for range 20 { // all of the slow one's are older
		batch = append(batch, w.message(w.merchantID, payment.EventOrderConfirmed, 2))
	}
	w.apply(batch...)
	for range 20 {
		w.happens(w.otherID, payment.EventOrderConfirmed)
	}
	d := w.dispatcher(func(c *Config) { c.Concurrency = merchantShare * perEndpoint })
	for len(quick.all()) < 20 {
		if _, err := d.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-d.Woken() // a slot is free: one of the quick ones ended
	}
	for range perEndpoint {
		<-arrived
	}
	if n := len(slow.all()); n != perEndpoint {
		t.Errorf("%d are under way to the slow one, want %d", n, perEndpoint)
	}
	end.Do(func() { close(release) })
	d.Drain()
	for _, e := range []Keyed{slowly, quickly} {
		for range 10 {
			w.turn(d)
		}
		if i := slices.IndexFunc(w.log(e), func(d Delivery) bool { return d.State != Succeeded }); i >= 0 {
			t.Errorf("not delivered in the end: %+v", w.log(e)[i])
		}
	}
}
