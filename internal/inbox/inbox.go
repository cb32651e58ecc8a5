package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// DefaultMaxAttempts of a message, before its key is blocked.
const DefaultMaxAttempts = 5

// Handler makes the effects of a batch in the inbox's transaction, in its order,
// all or none of them: each message is new here, and none is behind a dead
// letter of its key. After an error what it did is rolled back and parts of the batch
// come again, until the message at fault is alone. Then an error that Permanent
// made, a refusal of the values by the database, or a panic makes the message
// a dead letter and blocks its key. A database that is unreachable or slow costs nothing. Every other error of
// the handler counts as one of the message's attempts.
type Handler func(ctx context.Context, tx pgx.Tx, batch []Message) error

// Config needs a logger and a registerer.
type Config struct {
	// MaxAttempts is how often a message may fail, or kill its process, before its
	// key is blocked. Default DefaultMaxAttempts.
	MaxAttempts int
	// Sequenced says that the handler itself drops what it has applied before, by
	// a sequence that it keeps for each aggregate. Then a message is handed to it
	// even when it is so old that its id is forgotten (Maintain); otherwise such a
	// message is a dead letter, since it may have been applied already.
	Sequenced bool
	// DropOld drops such a message instead, and counts and logs it: its effect is worth
	// nothing after so long, and the later messages of its key do not depend on it.
	DropOld bool
	// Finish, when set, is called once in each transaction, as the last of all, with the
	// messages that the handler has applied in it, in order. What many transactions would
	// wait for is locked here, so that it is held for no longer than the commit takes.
	Finish     func(ctx context.Context, tx pgx.Tx, applied []Message) error
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

	mu        sync.Mutex
	positions map[partitionKey]*position
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
	if c.Sequenced && c.DropOld {
		return nil, errors.New("an inbox hands old messages to its handler or drops them, not both")
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
	return &Inbox{Config: c, pool: pool, consumer: consumer, handle: handle, metrics: m, positions: map[partitionKey]*position{}}, nil
}

// Taken is what became of a partition's messages: the first N are applied, known already
// or dead letters, and that is committed together with their offsets. After an error the others
// come again. The error is ErrFenced when a later generation has been here.
type Taken struct {
	N   int
	Err error
}

// Apply is ApplyAll for a batch of one partition.
func (in *Inbox) Apply(ctx context.Context, generation int, batch []Message) (taken int, err error) {
	t := in.ApplyAll(ctx, generation, [][]Message{batch})[0]
	return t.N, t.Err
}

// ApplyAll takes in a batch of each of several partitions, each in its order, for a
// member of the consumer group in this generation (any constant without a group). All
// of them are taken in by one transaction, and by further ones as long as there are
// suspects. What happens to one partition does not hold up the others: a partition that
// a later generation has claimed is left out, and one whose message has failed stops
// there.
func (in *Inbox) ApplyAll(ctx context.Context, generation int, batches [][]Message) []Taken {
	taken := make([]Taken, len(batches))
	var parts []*part
	for i, batch := range batches {
		if len(batch) == 0 {
			continue
		}
		if err := onePartition(batch); err != nil {
			taken[i].Err = err
			continue
		}
		parts = append(parts, &part{position: in.position(batch[0].Topic, batch[0].Partition), at: i, rest: batch})
	}
	// Here and in the database, partitions are locked in one order.
	slices.SortFunc(parts, func(a, b *part) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
	})
	var locked []*part
	defer func() {
		for _, p := range locked {
			p.mu.Unlock()
		}
	}()
	for i, p := range parts {
		if i > 0 && p.position == parts[i-1].position {
			p.err = fmt.Errorf("two batches of %s/%d", p.topic, p.partition)
			continue
		}
		p.mu.Lock()
		locked = append(locked, p)
		if !p.claimed || p.generation != generation {
			p.err = in.claim(ctx, p.position, generation, nil)
		}
	}
	for hand := next(parts); len(hand) > 0; hand = next(parts) {
		in.attempt(ctx, hand)
	}
	for _, p := range parts {
		taken[p.at].N = p.taken
		if p.err != nil {
			taken[p.at].Err = fmt.Errorf("apply to %s from offset %d of %s/%d: %w", in.consumer, p.rest[0].Offset, p.topic, p.partition, p.err)
		}
	}
	return taken
}

func (in *Inbox) tell(ctx context.Context, out outcome) {
	if out.dropped > 0 {
		in.Log.WarnContext(ctx, "messages dropped: they are older than the ids that are kept, and may have been applied before", "messages", out.dropped)
	}
	for _, f := range out.faults {
		log := in.Log.With("blocked", blockedID(in.consumer, f.message.Topic, f.message.Key),
			"topic", f.message.Topic, "partition", f.message.Partition, "offset", f.message.Offset,
			"id", clean(f.message.Headers[HeaderID]), "key", clean(string(f.message.Key)), "error", f.err)
		if fingerprintOf(f.err) == fingerprintGap {
			log.WarnContext(ctx, "message waits for an earlier one of its key")
		} else {
			log.ErrorContext(ctx, "message is a dead letter, its key is blocked")
		}
	}
}
