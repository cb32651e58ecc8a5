package inbox

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
)

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

func (in *Inbox) position(topic string, partition int) *position {
	in.mu.Lock()
	defer in.mu.Unlock()
	at := partitionKey{topic, partition}
	p := in.positions[at]
	if p == nil {
		p = &position{partitionKey: at}
		in.positions[at] = p
	}
	return p
}

// Claim refuses all earlier generations of the group in the partition from now
// on, and tells where to go on. A later generation's claim that stands already
// is ErrFenced, unless current confirms this one: the broker counts from one
// again when it has forgotten the group. current asks the group's coordinator whether the generation still
// stands, and may be nil.
func (in *Inbox) Claim(ctx context.Context, topic string, partition, generation int, current func(next int64) error) (Offset, error) {
	p := in.position(topic, partition)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := in.claim(ctx, p, generation, current); err != nil {
		return Offset{Next: -1}, err
	}
	return p.progress.stands(), nil
}

// Stands is ErrFenced when a partition of this generation stands before what this process
// has taken in: the database has lost its last commits, by a failover or a restore. Without new
// messages nothing else would notice. Partitions that are being applied to are left out, since
// that notices by itself.
func (in *Inbox) Stands(ctx context.Context, topic string, generation int) error {
	var partitions []int32
	var stood []int64
	for _, p := range in.positionsOf(topic) {
		if !p.mu.TryLock() {
			continue
		}
		if p.claimed && p.generation == generation && p.progress.next != nil {
			partitions, stood = append(partitions, int32(p.partition)), append(stood, *p.progress.next) //nolint:gosec // Kafka's partitions are int32
		}
		p.mu.Unlock()
	}
	if len(partitions) == 0 {
		return nil
	}
	var behind int
	err := in.pool.QueryRow(ctx, `
		SELECT count(*) FROM unnest($3::int[], $4::bigint[]) AS s (partition, stood) WHERE NOT EXISTS (
			SELECT FROM inbox_offsets o WHERE o.consumer = $1 AND o.topic = $2 AND o.partition = s.partition
				AND o.generation = $5 AND o.next_offset >= s.stood)`,
		in.consumer, topic, partitions, stood, generation).Scan(&behind)
	if err != nil {
		return fmt.Errorf("look where %s stands in %s: %w", in.consumer, topic, err)
	}
	if behind > 0 {
		return fmt.Errorf("%w: %d partitions of %s stand before what was taken in", ErrFenced, behind, topic)
	}
	return nil
}

func (in *Inbox) positionsOf(topic string) (positions []*position) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for at, p := range in.positions {
		if at.topic == topic {
			positions = append(positions, p)
		}
	}
	return positions
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

// take moves the row to the generation if it stands at stored, or below both. An attempt that
// is under way comes to its end first.
func (in *Inbox) take(ctx context.Context, p *position, generation, stored int) error {
	g, head, rest := progress{}, tries{}, []int64{}
	var moved bool
	var b pgx.Batch
	queueWait(&b, in.consumer, p.partitionKey)
	b.Queue(`
		WITH stood AS (
			SELECT system_identifier, timeline FROM inbox_offsets WHERE consumer = $1 AND topic = $2 AND partition = $3)
		INSERT INTO inbox_offsets AS o (consumer, topic, partition, generation, system_identifier, timeline)
		SELECT $1, $2, $3::int, $4::int, system_identifier, timeline FROM server_identity()
		ON CONFLICT (consumer, topic, partition) DO UPDATE SET generation = excluded.generation,
			system_identifier = excluded.system_identifier, timeline = excluded.timeline, updated_at = now()
		WHERE o.generation <= excluded.generation OR o.generation = $5
		RETURNING next_offset, last_id, tried_from, tried_until, attempts, tried_rest,
			coalesce((SELECT (s.system_identifier, s.timeline) <> (o.system_identifier, o.timeline) FROM stood s), false)`,
		in.consumer, p.topic, p.partition, generation, stored).QueryRow(func(row pgx.Row) error {
		return row.Scan(&g.next, &g.last, &head.from, &head.until, &head.attempts, &rest, &moved)
	})
	err := in.pool.SendBatch(ctx, &b).Close()
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrFenced
	}
	if moved { // who claims compares the position with the log in any case
		in.Log.WarnContext(ctx, "the consumer's database is another server, or was promoted or recovered", "topic", p.topic, "partition", p.partition)
	}
	g.tried = triedOf(head, rest)
	p.progress = g
	return err
}
