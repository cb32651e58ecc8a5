package inbox

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/postgres"
)

// HeaderID is the header that carries a message's id: that of a CloudEvent in
// Kafka's binary mode. Two messages with one id are one event.
const HeaderID = "ce_id"

const maxID = 255

// Message is a record of a broker's log. Its place in the log is Topic,
// Partition and Offset; messages of one Key are in order.
type Message struct {
	Topic     string
	Partition int
	Offset    int64
	Key       []byte
	Value     []byte
	Headers   map[string]string
}

// Handler makes the message's effect in the inbox's transaction. An error that
// Permanent made, a refusal of the values by the database, or a panic parks the
// message's key; every other error means that the same message may be applied
// later.
type Handler func(ctx context.Context, tx pgx.Tx, m Message) error

// Config has no defaults.
type Config struct {
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Inbox is one consumer's. It is safe for concurrent use.
type Inbox struct {
	pool     *pgxpool.Pool
	consumer string
	handle   Handler
	log      *slog.Logger
	applied  *prometheus.CounterVec
	parked   prometheus.Gauge
	counted  atomic.Bool // parked has been read from the database
}

// New registers payments_inbox_applied_total and payments_inbox_parked_keys. The
// consumer's name is the scope of its deduplication and never changes. A
// database that is away is no error.
func New(pool *pgxpool.Pool, consumer string, handle Handler, c Config) (*Inbox, error) {
	if pool == nil || consumer == "" || handle == nil || c.Log == nil || c.Registerer == nil {
		return nil, errors.New("an inbox needs a pool, a consumer's name, a handler, a logger and a registerer")
	}
	in := &Inbox{
		pool: pool, consumer: consumer, handle: handle, log: c.Log.With("consumer", consumer),
		applied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_inbox_applied_total", Help: "Messages taken in, by what became of them.",
		}, []string{"result"}),
		parked: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "payments_inbox_parked_keys", Help: "Keys whose messages wait for a person.",
		}),
	}
	for _, result := range []string{"applied", "duplicate", "parked"} {
		in.applied.WithLabelValues(result)
	}
	reg := prometheus.WrapRegistererWith(prometheus.Labels{"consumer": consumer}, c.Registerer)
	for _, metric := range []prometheus.Collector{in.applied, in.parked} {
		if err := reg.Register(metric); err != nil {
			return nil, fmt.Errorf("register inbox %s: %w", consumer, err)
		}
	}
	in.countParked(context.Background()) //nolint:forbidigo // bounded, and New has no caller's context to take
	return in, nil
}

// Apply takes in a batch, in its order, in one transaction: after nil all of it
// is applied, known already or parked; after an error none of it is, and it is
// to be delivered again.
func (in *Inbox) Apply(ctx context.Context, batch []Message) error {
	if len(batch) == 0 {
		return nil
	}
	var outcome outcome
	err := postgres.InTx(ctx, in.pool, func(tx pgx.Tx) (err error) {
		outcome, err = in.apply(ctx, tx, batch)
		return err
	})
	if err != nil {
		return fmt.Errorf("apply %d messages for %s: %w", len(batch), in.consumer, err)
	}
	in.applied.WithLabelValues("applied").Add(float64(outcome.applied))
	in.applied.WithLabelValues("duplicate").Add(float64(outcome.duplicate))
	in.applied.WithLabelValues("parked").Add(float64(outcome.parked))
	for _, f := range outcome.faults {
		in.log.ErrorContext(ctx, "message parked, its key waits behind it", "topic", f.message.Topic,
			"partition", f.message.Partition, "offset", f.message.Offset, "id", clean(f.message.Headers[HeaderID]),
			"key", clean(string(f.message.Key)), "error", f.err)
	}
	if outcome.parked > 0 || !in.counted.Load() {
		in.countParked(ctx)
	}
	return nil
}

type outcome struct {
	applied, duplicate, parked int
	faults                     []fault
}

type fault struct {
	message Message
	err     error
}

func (in *Inbox) apply(ctx context.Context, tx pgx.Tx, batch []Message) (outcome, error) {
	var o outcome
	if err := in.lockPartitions(ctx, tx, batch); err != nil {
		return o, err
	}
	parked, err := in.parkedKeys(ctx, tx, batch)
	if err != nil {
		return o, err
	}
	for _, m := range batch {
		reason := errBehind
		if !parked[string(m.Key)] {
			var fresh bool
			if fresh, reason, err = in.one(ctx, tx, m); err != nil {
				return o, fmt.Errorf("offset %d of %s/%d: %w", m.Offset, m.Topic, m.Partition, err)
			}
			switch {
			case reason != nil:
				parked[string(m.Key)] = true
				o.faults = append(o.faults, fault{m, reason})
			case fresh:
				o.applied++
				continue
			default:
				o.duplicate++
				continue
			}
		}
		spilled, err := in.park(ctx, tx, m, reason)
		if err != nil {
			return o, fmt.Errorf("park offset %d of %s/%d: %w", m.Offset, m.Topic, m.Partition, err)
		}
		if spilled {
			o.parked++
		} else {
			o.duplicate++
		}
	}
	return o, nil
}

// lockPartitions makes a consumer that has lost a partition to another process
// in the middle of a batch wait, or the other wait for it: without this, a later
// message of a key could be applied while the one that parks the key is still
// uncommitted elsewhere.
func (in *Inbox) lockPartitions(ctx context.Context, tx pgx.Tx, batch []Message) error {
	var locks []int64
	for _, m := range batch {
		h := fnv.New64a()
		fmt.Fprintf(h, "inbox %q %q %d", in.consumer, m.Topic, m.Partition)
		locks = append(locks, int64(h.Sum64())) //nolint:gosec // a hash: every bit pattern is as good
	}
	slices.Sort(locks) // one order for all, so that two batches cannot deadlock
	_, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(lock) FROM unnest($1::bigint[]) AS lock`, slices.Compact(locks))
	if err != nil {
		return fmt.Errorf("lock partitions: %w", err)
	}
	return nil
}

// one applies one message behind a savepoint. A reason means that it can never
// be applied and that nothing of it was; fresh is false for a duplicate.
func (in *Inbox) one(ctx context.Context, tx pgx.Tx, m Message) (fresh bool, reason, err error) {
	id, ok := messageID(m)
	if !ok {
		return false, errNoID, nil
	}
	savepoint, err := tx.Begin(ctx)
	if err != nil {
		return false, nil, fmt.Errorf("savepoint: %w", err)
	}
	tag, err := savepoint.Exec(ctx, `
		INSERT INTO inbox_messages (consumer, message_id) VALUES ($1, $2)
		ON CONFLICT DO NOTHING`, in.consumer, id)
	if fresh = err == nil && tag.RowsAffected() == 1; fresh {
		err = safely(ctx, in.handle, savepoint, m)
	}
	if err == nil {
		if err := savepoint.Commit(ctx); err != nil {
			return false, nil, fmt.Errorf("release savepoint: %w", err)
		}
		return fresh, nil, nil
	}
	if !permanent(err) && !postgres.DataError(err) {
		return false, nil, err
	}
	if rerr := savepoint.Rollback(ctx); rerr != nil {
		return false, nil, errors.Join(err, fmt.Errorf("roll back to savepoint: %w", rerr))
	}
	return false, err, nil
}

// messageID is false when there is none that the database could hold.
func messageID(m Message) (string, bool) {
	id := m.Headers[HeaderID]
	return id, id != "" && len(id) <= maxID && utf8.ValidString(id) && !strings.ContainsRune(id, 0)
}

func safely(ctx context.Context, handle Handler, tx pgx.Tx, m Message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = Permanent(fmt.Errorf("the handler panicked: %v\n%s", p, debug.Stack()))
		}
	}()
	return handle(ctx, tx, m)
}

// Applied reports whether the message has had its effect here.
func (in *Inbox) Applied(ctx context.Context, messageID string) (applied bool, err error) {
	err = in.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM inbox_messages WHERE consumer = $1 AND message_id = $2)`,
		in.consumer, messageID).Scan(&applied)
	if err != nil {
		return false, fmt.Errorf("look for message: %w", err)
	}
	return applied, nil
}
