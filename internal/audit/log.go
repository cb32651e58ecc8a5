package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/inbox"
)

// Log reads the event log (broker.Client).
type Log interface {
	// Spans has for each partition its first offset and the one behind its newest message.
	Spans(ctx context.Context, topic string) (map[int][2]int64, error)
	// Read is what the partition holds from the offset on, as far as one answer goes.
	Read(ctx context.Context, topic string, partition int, offset int64) ([]inbox.Message, error)
	// Partition is where the key is published while the topic has so many partitions.
	Partition(key string, partitions int) int
}

// found is an event in the log, or one that counts as published.
type found struct {
	ID        string    `json:"id"`
	Published bool      `json:"published,omitempty"` // by the checkpoints
	At        time.Time `json:"at"`                  // made, of one that counts as published; else its record's time
	Partition int       `json:"partition,omitempty"`
	Offset    int64     `json:"offset,omitempty"`
}

// emptyReads of one offset end the audit: the broker has records there and gives none.
const emptyReads = 10

// clocks is how far those of the database and of the relays may be apart.
const clocks = time.Minute

// partition as it was read.
type partition struct {
	cut   bool      // retention has deleted what was before
	first time.Time // of the first record that is there; zero: there is none
}

// compareLog notes which events count as published, reads the topic up to where it ended
// after that, and merges both by key and sequence, on disk.
func (a Audit) compareLog(ctx context.Context) ([]Finding, error) {
	f := Finding{Invariant: 6, Name: "every published event is in its partition, in sequence"}
	if a.Log == nil {
		f.Note = "the event log was not read"
		return []Finding{f}, nil
	}
	s := newSpool(a.Dir)
	defer s.close()
	if err := a.published(ctx, s); err != nil {
		return nil, err
	}
	err := a.mergeLog(ctx, s, &f)
	return []Finding{f}, err
}

// mergeLog reads the log into the spool that has the published events, and compares.
func (a Audit) mergeLog(ctx context.Context, s *spool, f *Finding) error {
	spans, err := a.Log.Spans(ctx, eventTopic)
	if err != nil {
		return fmt.Errorf("read the event log: %w", err)
	}
	partitions := make([]partition, len(spans))
	for n := range partitions {
		if partitions[n], err = a.readPartition(ctx, s, n, spans[n]); err != nil {
			return fmt.Errorf("read the event log, partition %d: %w", n, err)
		}
	}
	all, err := s.sorted()
	if err != nil {
		return err
	}
	l := logWalk{Audit: a, f: f, partitions: partitions}
	for {
		if _, ok := all.peek(); !ok {
			return nil
		}
		key, values, err := all.take()
		if err == nil {
			err = l.event(key, values)
		}
		if err != nil {
			return err
		}
	}
}

func eventKey(key string, sequence int64) string { return fmt.Sprintf("%s %020d", key, sequence) }

func keep(s *spool, key string, e found) error {
	document, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return s.add(key, document)
}

// published are the events that the outbox's cursors count as published.
func (a Audit) published(ctx context.Context, into *spool) error {
	return a.snapshot(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			SELECT o.key, o.sequence, o.id, o.created_at FROM outbox o
			WHERE o.topic = $1 AND `+publishedByCursor, eventTopic)
		if err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		var key string
		var sequence int64
		e := found{Published: true}
		if _, err := pgx.ForEachRow(rows, []any{&key, &sequence, &e.ID, &e.At}, func() error {
			return keep(into, eventKey(key, sequence), e)
		}); err != nil {
			return fmt.Errorf("read the outbox: %w", err)
		}
		return nil
	})
}

func (a Audit) readPartition(ctx context.Context, into *spool, n int, span [2]int64) (p partition, err error) {
	p.cut = span[0] > 0
	empty := 0
	for at := span[0]; at < span[1]; {
		batch, err := a.Log.Read(ctx, eventTopic, n, at)
		if err != nil || len(batch) == 0 {
			if ctx.Err() != nil {
				return p, context.Cause(ctx)
			}
			// Retention may have deleted what was there a moment ago.
			now, spanErr := a.Log.Spans(ctx, eventTopic)
			if spanErr != nil {
				return p, errors.Join(err, spanErr)
			}
			if now[n][0] > at {
				at, p = now[n][0], partition{cut: true}
				continue
			}
			if empty++; err != nil || empty == emptyReads {
				return p, errors.Join(err, fmt.Errorf("no record at offset %d of %d", at, span[1]))
			}
			continue
		}
		empty = 0
		for _, m := range batch {
			at = m.Offset + 1
			if m.Offset >= span[1] {
				break
			}
			if p.first.IsZero() {
				p.first = m.Time
			}
			sequence := sequenceOf(m.Headers["ce_sequence"])
			if err := keep(into, eventKey(string(m.Key), sequence), found{ID: m.Headers["ce_id"], At: m.Time, Partition: n, Offset: m.Offset}); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

// logWalk goes through the events in the order of key and sequence.
type logWalk struct {
	Audit
	f          *Finding
	partitions []partition
	key        string
	before     found // the first delivery of the key's event before, if there was one
}

func (l *logWalk) event(at string, values [][]byte) error {
	key := at[:strings.LastIndexByte(at, ' ')]
	if key != l.key {
		l.key, l.before = key, found{}
	}
	var published, first *found
	for _, v := range values {
		var e found
		if err := json.Unmarshal(v, &e); err != nil {
			return fmt.Errorf("read a temporary file: %w", err)
		}
		switch {
		case e.Published:
			published = &e
		case published != nil && e.ID != published.ID:
			l.f.violate("%s: the log has event %s in the place of %s, at %d/%d", at, e.ID, published.ID, e.Partition, e.Offset)
		case first == nil: // of one partition they come in the order of their offsets
			first = &e
		}
	}
	if published != nil {
		l.f.Counted++
	}
	switch {
	case first == nil && published != nil && !l.deleted(key, *published):
		l.f.violate("%s: event %s counts as published and is not in the log", at, published.ID)
	case first != nil && !l.belongs(key, *first):
		l.f.violate("%s: event %s is in partition %d, and its key belongs to %d", at, first.ID, first.Partition, l.Log.Partition(key, len(l.partitions)))
	case first != nil && l.before.ID != "" && l.before.Partition == first.Partition && first.Offset < l.before.Offset && !l.partitions[first.Partition].cut:
		l.f.violate("%s: event %s was delivered before the event before it, at %d/%d", at, first.ID, first.Partition, first.Offset)
	}
	if first != nil {
		l.before = *first
	}
	return nil
}

// deleted reports that retention may have deleted the event: the log begins with a record
// that was published later. An event is published after it was made.
func (l *logWalk) deleted(key string, e found) bool {
	p := l.partitions[l.Log.Partition(key, len(l.partitions))]
	if l.before.ID != "" && l.before.Partition == l.Log.Partition(key, len(l.partitions)) {
		return false // an older event of its key is there
	}
	return p.cut && (p.first.IsZero() || !e.At.After(p.first.Add(clocks)))
}

// belongs reports that the key is published where the event is, now or before partitions
// were added that had no record by then.
func (l *logWalk) belongs(key string, e found) bool {
	for n := len(l.partitions); n > 0; n-- {
		if l.Log.Partition(key, n) == e.Partition {
			return true
		}
		if last := l.partitions[n-1]; last.cut || !last.first.IsZero() && !last.first.After(e.At) {
			return false // it took records by then
		}
	}
	return false
}
