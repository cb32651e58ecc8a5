package outbox_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"payments/internal/outbox"
	"payments/internal/postgres"
)

func TestWhatIsAppendedIsWhatIsPublished(t *testing.T) {
	pool, _ := database(t)
	w := &wire{}
	r, _ := relay(t, pool, w, outbox.RelayConfig{})
	msgs := []outbox.Message{
		{MerchantID: "m", ID: "1", Topic: "events", Key: "ä", Sequence: 1, Headers: []outbox.Header{
			{Key: "twice", Value: "<&>{,}"}, {Key: "another", Value: ""}, {Key: "twice", Value: "\"é\\\n"}, {Key: "null", Value: "NULL"},
		}, Payload: []byte("\x00\xff{}")},
		{MerchantID: "m", ID: "2", Topic: "other", Key: "ä", Sequence: 2, Headers: []outbox.Header{}, Payload: []byte{}},
	}
	if err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		return errors.Join(outbox.Append(t.Context(), tx, msgs...), outbox.Append(t.Context(), tx))
	}); err != nil {
		t.Fatal(err)
	}
	turn(t, r)
	if diff := cmp.Diff(msgs, w.sent); diff != "" {
		t.Error(diff)
	}
}

func TestAppendRefuses(t *testing.T) {
	pool, _ := database(t)
	for name, spoil := range map[string]func(*outbox.Message){
		"no merchant":     func(m *outbox.Message) { m.MerchantID = "" },
		"no id":           func(m *outbox.Message) { m.ID = "" },
		"no topic":        func(m *outbox.Message) { m.Topic = "" },
		"no key":          func(m *outbox.Message) { m.Key = "" },
		"sequence 0":      func(m *outbox.Message) { m.Sequence = 0 },
		"nameless header": func(m *outbox.Message) { m.Headers = []outbox.Header{{Value: "v"}} },
		"NUL in a header": func(m *outbox.Message) { m.Headers = []outbox.Header{{Key: "k", Value: "\x00"}} },
		"bytes that are no text in a header": func(m *outbox.Message) {
			m.Headers = []outbox.Header{{Key: "k", Value: "\xff"}}
		},
	} {
		m := message("k", 1)
		spoil(&m)
		err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			return outbox.Append(t.Context(), tx, m)
		})
		if err == nil || postgres.DataError(err) {
			t.Errorf("%s: Append = %v, want an error of its own", name, err)
		}
	}
	commit(t, pool, "k")
	err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		m := message("k", 1)
		m.ID = "another"
		return outbox.Append(t.Context(), tx, m)
	})
	if got := postgres.Constraint(err); !strings.HasSuffix(got, "_one_event_a_sequence") {
		t.Errorf("a sequence given twice: %v", err)
	}
}

func TestAppendRefusesATransactionThatIsNotDurable(t *testing.T) {
	pool, _ := database(t)
	for setting, want := range map[string]error{
		"off": outbox.ErrNotDurable, "local": outbox.ErrNotDurable, "remote_write": outbox.ErrNotDurable, "on": nil, "remote_apply": nil,
	} {
		err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), `SET LOCAL synchronous_commit = `+setting); err != nil {
				return err
			}
			return outbox.Append(t.Context(), tx, message(setting, 1))
		})
		if !errors.Is(err, want) {
			t.Errorf("synchronous_commit = %s: Append = %v, want %v", setting, err, want)
		}
	}
}

// The hashes are those of UtilsTest in Apache Kafka, without their sign.
func TestAKeyHasTheHashOfTheJavaClient(t *testing.T) {
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := outbox.Hash(key); got != want&0x7fffffff {
			t.Errorf("hash(%q) = %d, want %d", key, got, want&0x7fffffff)
		}
	}
}
