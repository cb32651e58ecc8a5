package order_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/payment"
	"payments/internal/saga"
)

// newer is the next version of the order saga: it scores the risk after the reservation.
func newer(old saga.Definition) saga.Definition {
	next := old
	next.Version = old.Version + 1
	next.Steps = slices.Insert(slices.Clone(old.Steps), 1, saga.Step{Kind: saga.Compensatable, Do: saga.Action{
		Name: "score_risk", Local: &saga.Local{Do: func(context.Context, saga.Unit, *saga.Instance) (saga.Outcome, error) {
			return saga.Outcome{Verdict: saga.Succeeded}, nil
		}},
	}})
	return next
}

func TestTwoVersionsInFlightFinishUnderTheirOwnDefinitions(t *testing.T) {
	w := newWorld(t)
	first := w.orders.Sagas()[0]
	second := newer(first)
	// Before the restart: an old process, half way.
	old := w.placed("pm_card_visa", payment.CaptureAutomatic)
	w.fault(`{"kind": "outage", "operation": "capture", "seconds": 600}`)
	before := w.worker(first)
	for w.count(`SELECT count(*) FROM sagas WHERE step = 'capture_payment' AND resolving`) == 0 {
		if _, err := before.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		before.Drain()
	}
	// A process that holds only the new version begins new ones and touches no old one.
	w.exec(`UPDATE sagas SET due_at = now()`)
	epoch := w.count(`SELECT epoch FROM sagas`)
	after := w.worker(second)
	if _, err := after.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	after.Drain()
	if n := w.count(`SELECT epoch FROM sagas`); n != epoch {
		t.Fatal("a saga was claimed by a worker that does not hold its version")
	}
	young := w.placed("pm_card_visa", payment.CaptureAutomatic)
	w.exec(`UPDATE sagas SET version = $2 WHERE id = $1`, w.sagaOf(young), second.Version)
	w.heal()
	both := w.worker(first, second)
	for w.count(`SELECT count(*) FROM sagas WHERE due_at IS NOT NULL`) > 0 {
		if _, err := both.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		both.Drain()
	}
	for id, want := range map[string]int{old: 0, young: 1} {
		scored := w.count(`SELECT count(*) FROM saga_attempts WHERE saga_id = $1 AND step = 'score_risk'`, w.sagaOf(id))
		if s := w.status(id); s != "succeeded" || scored != want {
			t.Errorf("%s is %s after %d scores, want %d", id, s, scored, want)
		}
	}
	w.audited()
}

func TestOrphanedVersionsAreReported(t *testing.T) {
	w := newWorld(t)
	second := newer(w.orders.Sagas()[0])
	w.placed("pm_card_visa", payment.CaptureAutomatic)
	worker := w.worker(second)
	if _, err := worker.Measure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := gaugeValue(t, w, "payments_sagas_orphaned"); n != 1 {
		t.Errorf("%v sagas are orphaned, want 1", n)
	}
	if _, err := w.worker().Measure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := gaugeValue(t, w, "payments_sagas_orphaned"); n != 0 {
		t.Errorf("%v sagas are orphaned though a worker holds them", n)
	}
}

func TestAChangedDefinitionNeedsANewVersion(t *testing.T) {
	w := newWorld(t)
	d := w.orders.Sagas()[0]
	if err := w.worker(d).Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	changed := newer(d)
	changed.Version = d.Version
	worker, err := saga.NewWorker(w.pool, saga.Config{
		Definitions: []saga.Definition{changed}, Owner: rand.Text(), CallTimeout: time.Second, Lease: 5 * time.Second, Concurrency: 1,
		Now: time.Now, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), Policy: w.policy,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := worker.Register(t.Context()); err == nil {
		t.Error("the same version was accepted with other steps")
	}
}
