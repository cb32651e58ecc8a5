package saga_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
	"payments/internal/saga"
)

// changed is the bank's version 1 with a step more.
func (b *bank) changed(ran *bool) saga.Definition {
	d := b.definition()
	d.Steps = append(d.Steps, saga.Step{Kind: saga.Retriable, Do: saga.Action{Name: "extra", Local: &saga.Local{Do: func(context.Context, saga.Unit, *saga.Instance) (saga.Outcome, error) {
		*ran = true
		return saga.Outcome{Verdict: saga.Succeeded}, nil
	}}}})
	return d
}

// serve goes on when Register finds no database. Once the database is back, a changed
// definition still drives nothing.
func TestAChangedDefinitionDrivesNothingWhenTheDatabaseWasAwayAtItsStart(t *testing.T) {
	pool := open(t)
	b := &bank{answer: saga.Outcome{Verdict: saga.Succeeded, Reference: "op_1"}}
	old := b.definition()
	w := worker(t, pool, "old", old)
	if err := w.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	begin(t, pool, old)
	local := false
	n := worker(t, pool, "new", b.changed(&local)) // its Register got "connection refused", which serve lets pass
	if _, err := n.Measure(t.Context()); !errors.Is(err, saga.ErrChanged) {
		t.Errorf("Measure: %v", err)
	}
	for range 2 {
		if _, err := n.RunOnce(t.Context()); !errors.Is(err, saga.ErrChanged) {
			t.Errorf("RunOnce: %v", err)
		}
	}
	n.Drain()
	if r := read(t, pool); r.State == "completed" || r.Epoch != 0 || b.executed.Load() != 0 || local {
		t.Errorf("the changed version 1 has driven a saga of version 1 (its new step ran: %v): %+v", local, r)
	}
	turn(t, w)
	if r := read(t, pool); r.State != "completed" {
		t.Errorf("the version that the saga began with left %+v", r)
	}
}

// The check at the worker is not enough: an API process has no worker that turns, and
// begins sagas.
func TestAChangedDefinitionBeginsNothing(t *testing.T) {
	pool := open(t)
	b := &bank{}
	if err := worker(t, pool, "old", b.definition()).Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	local := false
	err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		return b.changed(&local).Begin(t.Context(), tx, saga.Begin{MerchantID: "mer_1", ID: "sag_1", Subject: "ord_1", Data: json.RawMessage(`{}`)})
	})
	if !errors.Is(err, saga.ErrChanged) {
		t.Errorf("Begin: %v", err)
	}
	begin(t, pool, b.definition())
	err = postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		return b.definition().Begin(t.Context(), tx, saga.Begin{MerchantID: "mer_1", ID: "sag_2", Subject: "ord_1", Data: json.RawMessage(`{}`)})
	})
	if !errors.Is(err, saga.ErrBegun) {
		t.Errorf("Begin of a subject that has a saga: %v", err)
	}
}

// A process with other steps must not count as one that holds the version: the alert on
// sagas that no worker drives looks at held_at.
func TestARefusedRegistrationDoesNotHoldTheVersion(t *testing.T) {
	pool := open(t)
	b := &bank{}
	if err := worker(t, pool, "old", b.definition()).Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE saga_definitions SET held_at = now() - interval '1 hour'`); err != nil {
		t.Fatal(err)
	}
	local := false
	if err := worker(t, pool, "new", b.changed(&local)).Register(t.Context()); !errors.Is(err, saga.ErrChanged) {
		t.Errorf("Register: %v", err)
	}
	var held bool
	if err := pool.QueryRow(t.Context(), `SELECT held_at > now() - interval '1 minute' FROM saga_definitions`).Scan(&held); err != nil || held {
		t.Errorf("held %v, %v", held, err)
	}
}
