package webhook

import (
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"payments/internal/payment"
)

func TestRotationSignsWithBothUntilTheOverlapEnds(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, nil)
	e := w.endpoint(w.merchantID, r.URL)
	rotated, err := w.rotate(e, time.Hour)
	if err != nil || rotated.Secret == e.Secret || rotated.PreviousUntil.IsZero() {
		t.Fatalf("rotated %+v, %v", rotated, err)
	}
	d := w.dispatcher()
	accepted := func() (by []bool) {
		t.Helper()
		w.happens(w.merchantID, payment.EventOrderConfirmed)
		w.turn(d)
		got := r.all()
		last := got[len(got)-1]
		for _, s := range []string{e.Secret, rotated.Secret} {
			verifier, err := standardwebhooks.NewWebhook(s)
			if err != nil {
				t.Fatal(err)
			}
			by = append(by, verifier.Verify(last.body, last.header) == nil)
		}
		return by
	}
	if by := accepted(); !by[0] || !by[1] {
		t.Errorf("during the overlap the signature is accepted by old and new: %v", by)
	}
	w.exec(`UPDATE webhook_secrets SET expires_at = now() WHERE expires_at IS NOT NULL`)
	if by := accepted(); by[0] || !by[1] {
		t.Errorf("after the overlap by old and new: %v", by)
	}
	for range maxSecrets - 1 {
		if _, err := w.rotate(e, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.rotate(e, time.Hour); code(err) != payment.CodeWebhookLimit {
		t.Errorf("one secret too many: %v", err)
	}
	if _, err := w.rotate(e, 0); err != nil {
		t.Error(err)
	}
	if n := value[int](w, `SELECT count(*) FROM webhook_secrets`); n != 1 {
		t.Errorf("%d secrets after a rotation without an overlap", n)
	}
	if n := value[int](w, `SELECT count(*) FROM webhook_secrets WHERE position('whsec_' IN encode(ciphertext, 'escape')) > 0`); n != 0 {
		t.Error("a secret lies in the clear")
	}
}

func TestRedeliveryByHand(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, nil)
	e := w.endpoint(w.merchantID, r.URL)
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	d := w.dispatcher()
	w.turn(d)
	id := w.log(e)[0].ID
	again, err := w.store.Redeliver(t.Context(), w.merchantID, e.ID, id)
	if err != nil || again.State != Pending || again.Attempts != 1 || len(again.Log) != 1 {
		t.Fatalf("redelivery %+v, %v", again, err)
	}
	w.turn(d)
	got := r.all()
	if len(got) != 2 || got[0].id() != got[1].id() {
		t.Fatalf("%d attempts", len(got))
	}
	if log := w.log(e)[0]; log.State != Succeeded || log.Attempts != 2 {
		t.Errorf("log %+v", log)
	}
}

// A redelivery that comes while its endpoint is deleted or disabled is refused: it would stay
// pending for ever, or until somebody enables the endpoint.
func TestARedeliveryWaitsForWhatBecomesOfItsEndpoint(t *testing.T) {
	for change, want := range map[string]payment.Code{
		`deleted_at = now()`: payment.CodeNotFound, `disabled_at = now(), disabled_reason = 'failing'`: payment.CodeWebhookDisabled,
	} {
		w := newWorld(t)
		r := newReceiver(t, nil)
		e := w.endpoint(w.merchantID, r.URL)
		w.happens(w.merchantID, payment.EventOrderConfirmed)
		w.turn(w.dispatcher())
		id := w.log(e)[0].ID
		tx, err := w.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `UPDATE webhook_endpoints SET `+change); err != nil {
			t.Fatal(err)
		}
		asked := make(chan error, 1)
		go func() {
			_, err := w.store.Redeliver(t.Context(), w.merchantID, e.ID, id)
			asked <- err
		}()
		waiting := false
		for !waiting && len(asked) == 0 {
			waiting = value[bool](w, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`)
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-asked; code(err) != want {
			t.Errorf("%s: %v", change, err)
		}
		if state := value[string](w, `SELECT state FROM webhook_deliveries`); state != string(Succeeded) {
			t.Errorf("%s: the delivery is %s", change, state)
		}
	}
}

func TestAnotherMerchantSeesNothing(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, nil)
	e := w.endpoint(w.merchantID, r.URL)
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	id := w.log(e)[0].ID
	other := scope(t, w.otherID)
	theirs := w.endpoint(w.otherID, r.URL)
	list, more, err := w.store.List(t.Context(), other, "", 10)
	if err != nil || more || len(list) != 1 || list[0].ID != theirs.ID {
		t.Errorf("the other's list %+v, %v", list, err)
	}
	_, getErr := w.store.Get(t.Context(), other, e.ID)
	_, _, logErr := w.store.Deliveries(t.Context(), other, e.ID, "", 10)
	_, redeliverErr := w.store.Redeliver(t.Context(), w.otherID, e.ID, id)
	_, crossErr := w.store.Redeliver(t.Context(), w.otherID, theirs.ID, id)
	_, enableErr := w.store.Enable(t.Context(), w.otherID, e.ID)
	stolen := e
	stolen.MerchantID = w.otherID
	_, rotateErr := w.rotate(stolen, 0)
	deleteErr := w.store.Delete(t.Context(), w.otherID, e.ID)
	for what, err := range map[string]error{
		"get": getErr, "log": logErr, "redeliver": redeliverErr, "redeliver by their own endpoint": crossErr, "enable": enableErr, "rotate": rotateErr, "delete": deleteErr,
	} {
		if code(err) != payment.CodeNotFound {
			t.Errorf("%s: %v", what, err)
		}
	}
	if list, _, err := w.store.List(t.Context(), scope(t, ""), "", 10); err != nil || len(list) != 2 {
		t.Errorf("the operator's list %+v, %v", list, err)
	}
	if list, more, err := w.store.List(t.Context(), scope(t, ""), "", 1); err != nil || len(list) != 1 || !more {
		t.Errorf("the operator's first page %+v, %v, %v", list, more, err)
	}
}

func TestDeletedEndpointGetsNothing(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, nil)
	e := w.endpoint(w.merchantID, r.URL)
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	if err := w.store.Delete(t.Context(), w.merchantID, e.ID); err != nil {
		t.Fatal(err)
	}
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	w.turn(w.dispatcher())
	if n := len(r.all()); n != 0 {
		t.Errorf("%d attempts", n)
	}
	if _, err := w.store.Get(t.Context(), scope(t, w.merchantID), e.ID); code(err) != payment.CodeNotFound {
		t.Errorf("get: %v", err)
	}
	if n := value[int](w, `SELECT count(*) FROM webhook_secrets`); n != 0 {
		t.Error("its secret is kept")
	}
	w.exec(`UPDATE webhook_endpoints SET deleted_at = now() - interval '31 days'`)
	w.exec(`UPDATE webhook_deliveries SET created_at = now() - interval '31 days'`)
	if _, err := Reap(t.Context(), w.pool); err != nil {
		t.Fatal(err)
	}
	if n := value[int](w, `SELECT (SELECT count(*) FROM webhook_deliveries) + (SELECT count(*) FROM webhook_endpoints)`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

func TestReapKeepsWhatIsWaitedFor(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, nil)
	e := w.endpoint(w.merchantID, r.URL)
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	w.turn(w.dispatcher())
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	w.exec(`UPDATE webhook_deliveries SET created_at = now() - interval '31 days', settled_at = settled_at - interval '31 days'`)
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	if again, err := Reap(t.Context(), w.pool); again || err != nil {
		t.Fatal(again, err)
	}
	if log := w.log(e); len(log) != 2 || log[0].State != Pending || log[1].State != Pending {
		t.Errorf("left %+v", log)
	}
}

func TestMerchantHasAtMostTenEndpoints(t *testing.T) {
	w := newWorld(t)
	for range MaxEndpoints {
		w.endpoint(w.merchantID, "http://127.0.0.1:9999/")
	}
	draft, err := NewDraft(w.guard, "http://127.0.0.1:9999/", []string{AllEvents})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.store.Create(t.Context(), w.request(w.merchantID), draft, nil); code(err) != payment.CodeWebhookLimit {
		t.Errorf("one too many: %v", err)
	}
	w.endpoint(w.otherID, "http://127.0.0.1:9999/")
}

func TestGaugesTellWhatWaits(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, nil)
	e := w.endpoint(w.merchantID, r.URL)
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	w.exec(`UPDATE webhook_deliveries SET created_at = now() - interval '2 hours', due_at = now() - interval '1 hour'`)
	d := w.dispatcher()
	measure := func() (due, pending, gone float64) {
		t.Helper()
		if _, err := d.Measure(t.Context()); err != nil {
			t.Fatal(err)
		}
		return counter(t, d.metrics.overdue), counter(t, d.metrics.oldest), counter(t, d.metrics.disabled.WithLabelValues("gone"))
	}
	if due, pending, gone := measure(); due < 3600 || due > 3700 || pending < 7200 || pending > 7300 || gone != 0 {
		t.Errorf("due for %v s, pending for %v s, %v gone", due, pending, gone)
	}
	r.answers(410)
	w.turn(d)
	if due, pending, gone := measure(); due != 0 || pending != 0 || gone != 1 {
		t.Errorf("after a 410: due for %v s, pending for %v s, %v gone (%s)", due, pending, gone, e.ID)
	}
}
