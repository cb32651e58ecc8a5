package main

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/access"
	"payments/internal/config"
	"payments/internal/inbox"
	"payments/internal/payment"
)

func TestDeadLettersFromTheCommandLine(t *testing.T) {
	shell := newShell(t)
	pool := shell.pool
	in, err := newInbox(pool, config.Config{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	batch := []inbox.Message{
		{Topic: payment.Topic, Offset: 1, Key: []byte("ord\x1b[2J"), Value: []byte("\xff"), Headers: map[string]string{inbox.HeaderID: "evt_1"}},
		{Topic: payment.Topic, Offset: 2, Key: []byte("ord\x1b[2J"), Value: []byte(`{"a": 1}`), Headers: map[string]string{inbox.HeaderID: "evt_2"}},
	}
	if _, err := in.Apply(t.Context(), 1, batch); err != nil {
		t.Fatal(err)
	}
	key, adasID := shell.key(access.RoleOperator, "", "ada")
	auditor, _ := shell.key(access.RoleAuditor, "", "ada")
	try := func(args ...string) (out string, err error) {
		return shell.run(key, append([]string{"deadletters"}, args...)...)
	}
	says := func(what string, wants []string, args ...string) string {
		t.Helper()
		out, err := try(args...)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("%s does not say %q:\n%s", what, want, out)
			}
		}
		return out
	}
	list := says("list", []string{"payment_view", "ord?[2J", "ce_sequence"}, "list")
	id := strings.Fields(strings.Split(list, "\n")[1])[0]
	says("list -groups", []string{"payment_view", "ce_sequence"}, "list", "-groups")
	if out, err := shell.run(key, "parked", "list"); err != nil || !strings.Contains(out, id) {
		t.Errorf("by its former name, the command prints %q (%v), want the key %s", out, err, id)
	}
	says("show", []string{id, `"ce_id": "evt_1"`, `"/w=="`, `"a": 1`}, "show", id)
	if out, err := try("replay", "-all"); err == nil || !strings.Contains(out, "2 wait still") {
		t.Errorf("replay of what cannot be applied: %q, %v", out, err)
	}
	for _, args := range [][]string{
		{}, {"drop"}, {"show"}, {"show", "prk_0"}, {"replay"}, {"replay", "-all", id}, {"replay", "prk_0"},
		{"discard", "-all", id}, {"discard", "-reason", " ", "-all", id}, {"discard", "-reason", "x", id}, {"discard", "-reason", "x", "-offset", "1", "-all", id},
		{"discard", "-reason", "x", "-offset", "one", id}, {"discard", "-reason", "x", "-offset", "7", id}, {"discard", "-reason", "x", "-by", "grace", "-all", id}, {"list", "x"}, {"list", "-nonsense"},
	} {
		if out, err := try(args...); err == nil {
			t.Errorf("deadletters %q is no error:\n%s", args, out)
		}
	}
	for _, nobody := range []string{"", auditor} {
		if out, err := shell.run(nobody, "deadletters", "discard", "-reason", "x", "-offset", "1", id); err == nil || !strings.Contains(err.Error(), "PAYMENTS_OPERATOR_KEY") {
			t.Errorf("discarded by nobody: %v\n%s", err, out)
		}
	}
	says("discard", []string{"1 wait still"}, "discard", "-reason", "sent by a test", "-offset", "1", id)
	says("discard", []string{"0 wait still"}, "discard", "-reason", "sent by a test", "-all", id)
	if out := says("list", nil, "list"); strings.Contains(out, id) {
		t.Errorf("still there:\n%s", out)
	}
	var who string
	if err := pool.QueryRow(t.Context(), `SELECT string_agg(DISTINCT holder || ' ' || discarded_by, ', ') FROM inbox_discarded`).Scan(&who); err != nil || who != "ada "+adasID {
		t.Errorf("discarded by %q (%v)", who, err)
	}
}
