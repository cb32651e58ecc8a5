package inbox

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// The naive inbox believes what it remembers, and writes it over what came back with
// the backup: what lies between is never applied.
func TestADatabaseThatWasRestoredUnderARunningConsumerIsClaimedAnew(t *testing.T) {
	pool := database(t)
	in := restart(t, pool, record)
	log := []Message{message(0, "a", 1), message(1, "a", 2), message(2, "a", 3), message(3, "a", 4)}
	apply(t, in, log[:1]...)
	backup := column(t, pool, `SELECT to_jsonb(o)::text FROM inbox_offsets o`)[0]
	apply(t, in, log[1:3]...)
	for _, sql := range []string{`DELETE FROM effects WHERE id <> 'a-1'`, `DELETE FROM inbox_messages WHERE message_id <> 'a-1'`, `DELETE FROM inbox_offsets`} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pool.Exec(t.Context(), `INSERT INTO inbox_offsets SELECT (jsonb_populate_record(NULL::inbox_offsets, $1)).*`, backup); err != nil {
		t.Fatal(err)
	}
	if n, err := in.Apply(t.Context(), 1, log[3:]); n != 0 || !errors.Is(err, ErrFenced) {
		t.Fatalf("it took %d in over what is missing: %v", n, err)
	}
	at, err := in.Claim(t.Context(), "events", 0, 1, nil)
	if err != nil || at != (Offset{1, "a-1"}) {
		t.Fatalf("it goes on at %v: %v", at, err)
	}
	apply(t, in, log[at.Next:]...)
	same(t, "effects", effects(t, pool), "a-1", "a-2", "a-3", "a-4")
}

// Without new messages, an idle consumer would never notice.
func TestAnInboxKnowsWhetherItStillStands(t *testing.T) {
	pool := database(t)
	in := restart(t, pool, record)
	stands := func(generation int) error { return in.Stands(t.Context(), "events", generation) }
	if err := stands(1); err != nil {
		t.Errorf("nothing was taken in: %v", err)
	}
	apply(t, in, message(0, "a", 1), message(1, "a", 2))
	for what, err := range map[string]error{"as it was left": stands(1), "of another generation": stands(2), "of another topic": in.Stands(t.Context(), "others", 1)} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, lost := range []string{
		`UPDATE inbox_offsets SET next_offset = 1`, `UPDATE inbox_offsets SET next_offset = NULL`, `UPDATE inbox_offsets SET next_offset = 2, generation = 2`, `DELETE FROM inbox_offsets`,
	} {
		if _, err := pool.Exec(t.Context(), lost); err != nil {
			t.Fatal(err)
		}
		if err := stands(1); !errors.Is(err, ErrFenced) {
			t.Errorf("after %s: %v", lost, err)
		}
	}
}

// A claim says on which server it was made. Another server, and a higher timeline, are told
// once, and change nothing of the position.
func TestAClaimOnAnotherServerIsTold(t *testing.T) {
	pool := database(t)
	var log strings.Builder
	in := restart(t, pool, record, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	apply(t, in, message(0, "a", 1))
	claim := func() string {
		t.Helper()
		log.Reset()
		if at, err := in.Claim(t.Context(), "events", 0, 1, nil); err != nil || at != (Offset{1, "a-1"}) {
			t.Fatal(at, err)
		}
		return log.String()
	}
	const moved = "another server, or was promoted"
	if told := claim(); strings.Contains(told, moved) {
		t.Errorf("on the same server: %s", told)
	}
	for _, sql := range []string{`UPDATE inbox_offsets SET system_identifier = 1`, `UPDATE inbox_offsets SET timeline = timeline - 1`} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		if told := claim(); !strings.Contains(told, moved) {
			t.Errorf("after %s: %q", sql, told)
		}
		if told := claim(); strings.Contains(told, moved) {
			t.Errorf("once more: %s", told)
		}
	}
	same(t, "of the server", column(t, pool, `
		SELECT ((o.system_identifier, o.timeline) = (s.system_identifier, s.timeline))::text FROM inbox_offsets o, server_identity() s`), "true")
}
