package main

import (
	"bytes"
	"strings"
	"testing"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

func TestOutboxOnTheCommandLine(t *testing.T) {
	db := devtest.Database(t)
	environment := map[string]string{"PAYMENTS_DATABASE_URL": db.URL, "PAYMENTS_MIGRATE_DATABASE_URL": db.OwnerURL}
	says := func(args ...string) (string, error) {
		var out, problems bytes.Buffer
		err := run(t.Context(), append([]string{"outbox"}, args...), func(name string) (string, bool) {
			v, ok := environment[name]
			return v, ok
		}, &out, &problems)
		return out.String() + problems.String(), err
	}
	for _, wrong := range [][]string{
		nil, {"publish"}, {"status", "more"}, {"status", "-settle"}, {"reset", "-from", "noon"}, {"reset", "-from"}, {"reset", "-settle"}, {"lost", "-from", "2026-11-30"},
	} {
		if out, err := says(wrong...); err == nil {
			t.Errorf("%q: %s", wrong, out)
		}
	}
	pool, err := postgres.Open(t.Context(), db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if out, err := says("status"); err != nil || !strings.Contains(out, "timeline 1") || !strings.Contains(out, "unknown") || strings.Contains(out, "reset") {
		t.Errorf("status: %s %v", out, err)
	}
	if out, err := says("reset"); err == nil || !strings.Contains(err.Error(), "nothing to reset") {
		t.Errorf("reset of what is proven: %s %v", out, err)
	}
	if out, err := says("reset", "-from", "2026-11-30"); err != nil || !strings.Contains(out, "since 2026-11-30T00:00:00Z is published again") {
		t.Errorf("reset -from: %s %v", out, err)
	}
	for _, sql := range []string{
		`INSERT INTO outbox_checkpoints (shard, epoch, done, system_identifier, timeline) SELECT shard, epoch + 1, '3:3:', 1, 1 FROM outbox_shards`,
		`INSERT INTO outbox_lost (event_id, key, sequence, type, log_partition, log_offset, timeline) VALUES ('evt_1', 'ord_1', 3, 'payment.captured', 2, 77, 2)`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := says("status"); err != nil || !strings.Contains(out, "no: run `payments outbox reset`") || !strings.Contains(out, "1 published events have no commit") {
		t.Errorf("status: %s %v", out, err)
	}
	delete(environment, "PAYMENTS_MIGRATE_DATABASE_URL")
	if out, err := says("reset"); err == nil || !strings.Contains(err.Error(), "PAYMENTS_MIGRATE_DATABASE_URL") {
		t.Errorf("as the service's role: %s %v", out, err)
	}
	environment["PAYMENTS_MIGRATE_DATABASE_URL"] = db.OwnerURL
	if out, err := says("reset"); err != nil || !strings.Contains(out, "0 events are published again") {
		t.Errorf("reset: %s %v", out, err)
	}
	if out, err := says("lost"); err != nil || !strings.Contains(out, "evt_1") || !strings.Contains(out, "payment.captured") {
		t.Errorf("lost: %s %v", out, err)
	}
	if out, err := says("lost", "-settle"); err != nil || !strings.Contains(out, "1 lost events are settled") {
		t.Errorf("lost -settle: %s %v", out, err)
	}
	if out, err := says("lost"); err != nil || strings.Contains(out, "evt_1") {
		t.Errorf("lost: %s %v", out, err)
	}
	delete(environment, "PAYMENTS_DATABASE_URL")
	if _, err := says("status"); err == nil || !strings.Contains(err.Error(), "PAYMENTS_DATABASE_URL") {
		t.Errorf("%v", err)
	}
}
