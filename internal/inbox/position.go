package inbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const forgiveTimeout = 2 * time.Second

type partitionKey struct {
	topic     string
	partition int
}

// position is where the consumer stands in one partition. What it holds is a
// copy of its row in inbox_offsets, which nobody else writes while the row has
// this generation.
type position struct {
	partitionKey
	mu         sync.Mutex
	claimed    bool
	generation int
	progress   progress
	failure    error // of the last attempt, if this process saw it
}

// Place is where a consumer goes on in a partition: Next is the offset behind the
// last message that was taken in, or -1, and LastID that message's id, if it had
// one. A log that holds another message there is another log under the same name.
type Place struct {
	Next   int64
	LastID string
}

// progress is a row of inbox_offsets: next is nil before the first message, and
// the messages [from, until) were in hand in an attempt that has not ended well,
// the first of them attempts times and the others once.
type progress struct {
	next        *int64
	last        *string // the id of the message before next
	from, until int64
	attempts    int
}

func (p progress) stands() Place {
	at := Place{Next: -1}
	if p.next != nil {
		at.Next = *p.next
	}
	if p.last != nil {
		at.LastID = *p.last
	}
	return at
}

func (p progress) attemptsOf(offset int64) int {
	switch {
	case offset < p.from || offset >= p.until:
		return 0
	case offset == p.from:
		return p.attempts
	}
	return 1
}

// begin is the progress while the batch is in hand.
func (p progress) begin(batch []Message) progress {
	first, end := batch[0].Offset, batch[len(batch)-1].Offset+1
	tried := p.attemptsOf(first)
	if tried > 0 {
		end = max(end, p.until)
	}
	return progress{next: p.next, last: p.last, from: first, until: end, attempts: tried + 1}
}

// passed is the progress when all up to and with m is taken in.
func (p progress) passed(m Message) progress {
	offset := m.Offset + 1
	g := progress{next: &offset}
	if id, ok := m.id(); ok {
		g.last = &id
	}
	if offset > p.from && offset < p.until { // in hand when the process died, and not tried since
		g.from, g.until, g.attempts = offset, p.until, 1
	}
	return g
}

// failedAt is the progress when the message at offset has failed and all before
// it is taken in, as passed says if there was any.
func (p progress) failedAt(offset int64, passed progress) progress {
	g := progress{next: passed.next, last: passed.last, from: offset, until: offset + 1, attempts: p.attemptsOf(offset)}
	if p.attempts > 1 { // it was alone, one of many suspects
		g.until = p.until
	}
	return g
}

func (in *Inbox) place(topic string, partition int) *position {
	in.mu.Lock()
	defer in.mu.Unlock()
	at := partitionKey{topic, partition}
	p := in.places[at]
	if p == nil {
		p = &position{partitionKey: at}
		in.places[at] = p
	}
	return p
}

// Claim refuses all earlier generations of the group in the partition from now
// on, and tells where to go on. A later generation's claim that stands already
// is ErrFenced, unless current confirms this one: the broker counts from one
// again when it has forgotten the group. current asks the group's coordinator whether the generation still
// stands, and may be nil.
func (in *Inbox) Claim(ctx context.Context, topic string, partition, generation int, current func(next int64) error) (Place, error) {
	p := in.place(topic, partition)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := in.claim(ctx, p, generation, current); err != nil {
		return Place{Next: -1}, err
	}
	return p.progress.stands(), nil
}

func (in *Inbox) claim(ctx context.Context, p *position, generation int, current func(next int64) error) error {
	p.claimed, p.failure = false, nil
	err := in.take(ctx, p, generation, generation)
	if errors.Is(err, ErrFenced) && current != nil {
		var stored int
		next := int64(-1)
		err = in.pool.QueryRow(ctx, `
			SELECT generation, coalesce(next_offset, -1) FROM inbox_offsets WHERE consumer = $1 AND topic = $2 AND partition = $3`,
			in.consumer, p.topic, p.partition).Scan(&stored, &next)
		if err == nil {
			if stale := current(next); stale != nil {
				return fmt.Errorf("%w: %d of %s/%d, it is at %d: %w", ErrFenced, generation, p.topic, p.partition, stored, stale)
			}
			// Whoever holds a generation that is as true as this one was asked later and takes
			// the row from this one, or has taken it meanwhile.
			err = in.take(ctx, p, generation, stored)
		}
	}
	if err != nil {
		return fmt.Errorf("claim %s/%d for generation %d: %w", p.topic, p.partition, generation, err)
	}
	p.claimed, p.generation = true, generation
	return nil
}

// take moves the row to the generation if it stands at stored, or below both.
func (in *Inbox) take(ctx context.Context, p *position, generation, stored int) error {
	g := progress{}
	err := in.pool.QueryRow(ctx, `
		INSERT INTO inbox_offsets AS o (consumer, topic, partition, generation) VALUES ($1, $2, $3, $4)
		ON CONFLICT (consumer, topic, partition) DO UPDATE SET generation = excluded.generation, updated_at = now()
		WHERE o.generation <= excluded.generation OR o.generation = $5
		RETURNING next_offset, last_id, tried_from, tried_until, attempts`,
		in.consumer, p.topic, p.partition, generation, stored).Scan(&g.next, &g.last, &g.from, &g.until, &g.attempts)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrFenced
	}
	p.progress = g
	return err
}

// record writes the attempts down on their own, before the handler can kill the
// process. What a crash of the database takes back is a count.
func (in *Inbox) record(ctx context.Context, p *position) error {
	var b pgx.Batch
	b.Queue(`SELECT set_config('synchronous_commit', 'off', true)`)
	b.Queue(saveProgress, in.consumer, p.topic, p.partition, p.generation,
		p.progress.next, p.progress.last, p.progress.from, p.progress.until, p.progress.attempts, p.progress.next)
	r := in.pool.SendBatch(ctx, &b)
	_, err := r.Exec()
	if err == nil {
		err = fenced(r.Exec())
	}
	return errors.Join(err, r.Close())
}

func (in *Inbox) forgive(ctx context.Context, p *position) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forgiveTimeout)
	defer cancel()
	if err := in.record(ctx, p); err != nil {
		in.Log.DebugContext(ctx, "an attempt that tells nothing stays counted", "partition", p.partition, "error", err)
	}
}
