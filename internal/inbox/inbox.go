package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// DefaultMaxAttempts of a message, before its key is parked.
const DefaultMaxAttempts = 5

// Handler makes the effects of a batch in the inbox's transaction, in its order,
// all or none of them: each message is new here, and none is behind a parked one
// of its key. After an error what it did is rolled back and parts of the batch
// come again, until the message at fault is alone. Then an error that Permanent
// made, a refusal of the values by the database, or a panic parks the message's
// key. A database that is unreachable or slow costs nothing. Every other error of
// the handler counts as one of the message's attempts.
type Handler func(ctx context.Context, tx pgx.Tx, batch []Message) error

// Config needs a logger and a registerer.
type Config struct {
	// MaxAttempts is how often a message may fail, or kill its process, before its
	// key is parked. Default DefaultMaxAttempts.
	MaxAttempts int
	// Sequenced says that the handler itself drops what it has applied before, by
	// a sequence that it keeps for each aggregate. Then a message is handed to it
	// even when it is so old that its id is forgotten (Maintain); otherwise such a
	// message is parked, since nobody can tell whether it was applied.
	Sequenced  bool
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Inbox is one consumer's. It is safe for concurrent use.
type Inbox struct {
	Config
	pool     *pgxpool.Pool
	consumer string
	handle   Handler
	metrics  metrics

	mu     sync.Mutex
	places map[partitionKey]*position
}

// ErrFenced means that the partition belongs to a later generation of the
// consumer group: nothing was applied, and the group has to be joined anew.
var ErrFenced = errors.New("the partition belongs to a later generation of the group")

// New registers payments_inbox_applied_total, and the gauges that Measure sets.
// The consumer's name is the scope of its deduplication and never changes. A
// database that is away is no error.
func New(pool *pgxpool.Pool, consumer string, handle Handler, c Config) (*Inbox, error) {
	if pool == nil || consumer == "" || handle == nil || c.Log == nil || c.Registerer == nil {
		return nil, errors.New("an inbox needs a pool, a consumer's name, a handler, a logger and a registerer")
	}
	if c.MaxAttempts < 0 {
		return nil, fmt.Errorf("%d attempts at most are negative", c.MaxAttempts)
	}
	if c.MaxAttempts == 0 {
		c.MaxAttempts = DefaultMaxAttempts
	}
	c.Log = c.Log.With("consumer", consumer)
	m, err := newMetrics(consumer, c.Registerer)
	if err != nil {
		return nil, err
	}
	return &Inbox{Config: c, pool: pool, consumer: consumer, handle: handle, metrics: m, places: map[partitionKey]*position{}}, nil
}

// Apply takes in a batch of one partition, in its order, for a member of the
// consumer group in this generation (any constant without a group). The first
// taken messages are applied, known already or parked, and that is committed
// together with their offsets; after an error the others come again. The error
// is ErrFenced when a later generation has been here.
func (in *Inbox) Apply(ctx context.Context, generation int, batch []Message) (taken int, err error) {
	if len(batch) == 0 {
		return 0, nil
	}
	if err := onePartition(batch); err != nil {
		return 0, err
	}
	p := in.place(batch[0].Topic, batch[0].Partition)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.claimed || p.generation != generation {
		if err := in.claim(ctx, p, generation, nil); err != nil {
			return 0, err
		}
	}
	for taken < len(batch) {
		n, err := in.attempt(ctx, p, batch[taken:])
		if taken += n; err != nil {
			p.claimed = p.claimed && !errors.Is(err, ErrFenced)
			return taken, fmt.Errorf("apply to %s from offset %d of %s/%d: %w",
				in.consumer, batch[taken].Offset, p.topic, p.partition, err)
		}
	}
	return taken, nil
}

// suspects take turns, all inboxes of a process together: when the process dies
// of one of them, no other is in hand, and no other's attempt is counted for it.
var suspects = make(chan struct{}, 1) //nolint:gochecknoglobals // a process dies as a whole

// attempt takes in the batch, or its first message alone if that was in hand in
// an attempt that failed. The attempt is on record before the handler is called.
func (in *Inbox) attempt(ctx context.Context, p *position, batch []Message) (taken int, err error) {
	before := p.progress
	tried := before.attemptsOf(batch[0].Offset)
	if tried > 0 {
		batch = batch[:1]
		select {
		case suspects <- struct{}{}:
			defer func() { <-suspects }()
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	var exhausted error
	if tried >= in.MaxAttempts {
		if exhausted = p.failure; exhausted == nil {
			exhausted = fmt.Errorf("%w %d times while the message was in hand", errDied, tried)
		}
	} else {
		p.progress = before.begin(batch)
		if err := in.record(ctx, p); err != nil {
			p.progress = before
			return 0, err
		}
	}
	out, err := in.commit(ctx, p, batch, exhausted)
	switch {
	case err == nil:
		in.metrics.count(out)
		in.tell(ctx, out)
		p.progress, p.failure = out.progress, out.stopped
		return out.taken, out.stopped
	case errors.Is(err, ErrFenced):
	case refused(err):
		p.failure = err
	default:
		// The attempt says nothing about the messages. If the record cannot be put
		// right, the next process takes them for suspects and applies them one by one.
		p.progress = before
		in.forgive(ctx, p)
	}
	return 0, err
}

func (in *Inbox) tell(ctx context.Context, o outcome) {
	for _, f := range o.faults {
		in.Log.ErrorContext(ctx, "message parked, its key waits behind it", "parked", parkedID(in.consumer, f.message.Topic, f.message.Key),
			"topic", f.message.Topic, "partition", f.message.Partition, "offset", f.message.Offset,
			"id", clean(f.message.Headers[HeaderID]), "key", clean(string(f.message.Key)), "error", f.err)
	}
}
