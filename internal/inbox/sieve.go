package inbox

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
)

// sieve takes the messages in hand apart, inside their transaction.
type sieve struct {
	in        *Inbox
	tx        pgx.Tx
	batch     []Message // of all parts, one part after the other
	parts     []int     // of each message, the part that it is of
	attempts  []int     // of each message, the one under way included
	exhausted error
	replay    bool // of one blocked key: whatever fails stops it, and age refuses nothing

	fenced   map[int]bool    // parts that are a later generation's; they are not in the batch
	held     map[string]bool // ids of blocked keys
	gaps     map[string]bool // those of them that wait for a message that is missing
	keptFrom time.Time       // the first day whose ids are kept
	own      map[int]bool    // messages whose ids were written here
	known    map[int]bool    // messages whose ids were there already, or are written for an earlier one
	struck   map[int]bool    // messages that a person discarded, and that no id tells of

	applied     []Message
	waiting     []waiting // the dead letters, in order
	faults      []fault
	stops       map[int]stop // by part: nothing is taken in from the message on
	duplicate   int
	dropped     int // for their age
	deadLetters int
}

// waiting is a dead letter: for the reason, or since it is behind another.
type waiting struct {
	message int
	reason  error
}

// stop is a message that has to be tried again.
type stop struct {
	message int
	reason  error
}

// enter locks the consumer's rows of the partitions, and the blocked keys of the batch
// against a replay of them. It locks the table of ids before it reads from which day on
// they are kept, so that they are kept until the end.
func (s *sieve) enter(ctx context.Context, hand []*part) error {
	var topics []string
	var partitions []int32
	var stood []*int64
	keys := []string{}
	for _, p := range hand {
		topics, partitions, stood = append(topics, p.topic), append(partitions, int32(p.partition)), append(stood, p.progress.next) //nolint:gosec // Kafka's partitions are int32
		for _, m := range p.hand {
			keys = append(keys, blockedID(s.in.consumer, m.Topic, m.Key))
		}
	}
	s.fenced, s.held, s.gaps = map[int]bool{}, map[string]bool{}, map[string]bool{}
	var mine map[partitionKey]bool
	var b pgx.Batch
	b.Queue(`
		SELECT o.topic, o.partition FROM inbox_offsets o JOIN unnest($3::text[], $4::int[], $5::bigint[]) AS s (topic, partition, stood) USING (topic, partition)
		WHERE o.consumer = $1 AND o.generation = $2 AND (s.stood IS NULL OR o.next_offset >= s.stood)
		ORDER BY o.topic, o.partition FOR UPDATE OF o`,
		s.in.consumer, hand[0].generation, topics, partitions, stood).Query(scanPartitions(&mine))
	queueKept(&b, &s.keptFrom)
	b.Queue(`SELECT id, fingerprint FROM inbox_parked_keys WHERE id = ANY ($1) ORDER BY id FOR UPDATE`, keys).Query(func(rows pgx.Rows) error {
		var id, fingerprint string
		_, err := pgx.ForEachRow(rows, []any{&id, &fingerprint}, func() error {
			s.held[id] = true
			if fingerprint == fingerprintGap {
				s.gaps[id] = true
			}
			return nil
		})
		return err
	})
	if err := s.tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("enter: %w", err)
	}
	for i, p := range hand {
		if !mine[p.partitionKey] {
			s.fenced[i] = true
			continue
		}
		for _, m := range p.hand {
			s.batch, s.parts, s.attempts = append(s.batch, m), append(s.parts, i), append(s.attempts, p.progress.attemptsOf(m.Offset))
		}
	}
	return s.note(ctx)
}

// outcomeOf is what became of a part.
func (s *sieve) outcomeOf(i int, p *part) partOutcome {
	o := partOutcome{taken: len(p.hand), progress: p.progress}
	stop, stopped := s.stops[i]
	if stopped {
		o.taken = slices.IndexFunc(p.hand, func(m Message) bool { return m.Offset == s.batch[stop.message].Offset })
		o.stopped = stop.reason
	}
	if o.taken > 0 {
		o.progress = p.progress.passed(p.hand[o.taken-1])
	}
	if stopped {
		o.progress = p.progress.failedAt(s.batch[stop.message].Offset, o.progress)
	}
	return o
}

// halted: the message's part has stopped before it.
func (s *sieve) halted(i int) bool {
	_, stopped := s.stops[s.parts[i]]
	return stopped
}

// note writes the ids of all messages that may be applied, and learns which of
// them are new.
func (s *sieve) note(ctx context.Context) error {
	var ids []string
	var days []time.Time
	var at []int
	for i, m := range s.batch {
		if id, ok := m.id(); ok && !forgotten(id, s.keptFrom) && !s.behind(i) {
			ids, days, at = append(ids, id), append(days, madeOn(id)), append(at, i)
		}
	}
	s.own, s.known = map[int]bool{}, map[int]bool{}
	if err := s.recall(ctx); err != nil || len(ids) == 0 {
		return err
	}
	rows, err := s.tx.Query(ctx, `
		INSERT INTO inbox_messages (consumer, made_on, message_id)
		SELECT $1, made_on, id FROM unnest($2::date[], $3::text[]) AS m (made_on, id) ORDER BY made_on, id
		ON CONFLICT DO NOTHING RETURNING message_id`, s.in.consumer, days, ids)
	if err != nil {
		return fmt.Errorf("note ids: %w", err)
	}
	written, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("note ids: %w", err)
	}
	fresh := make(map[string]bool, len(written))
	for _, id := range written {
		fresh[id] = true
	}
	for n, i := range at {
		if fresh[ids[n]] {
			s.own[i] = true
			delete(fresh, ids[n]) // what comes again in this batch is known
		} else {
			s.known[i] = true
		}
	}
	return nil
}

// recall finds the messages that were discarded and that no id says so of: those
// without one, and those whose id is forgotten. They are known by what they are and
// where: at their offset in a topic that was made anew lies another message.
func (s *sieve) recall(ctx context.Context) error {
	var keys, ids []string
	var partitions []int32
	var offsets, at []int64
	var values [][]byte
	for i, m := range s.batch {
		if id, ok := m.id(); ok && !forgotten(id, s.keptFrom) {
			continue
		}
		keys, ids = append(keys, blockedID(s.in.consumer, m.Topic, m.Key)), append(ids, clean(m.Headers[HeaderID]))
		partitions, offsets = append(partitions, int32(m.Partition)), append(offsets, m.Offset) //nolint:gosec // Kafka's partitions are int32
		values, at = append(values, orEmpty(m.Value)), append(at, int64(i))
	}
	s.struck = map[int]bool{}
	if len(at) == 0 {
		return nil
	}
	// By the index inbox_discarded_place.
	rows, err := s.tx.Query(ctx, `
		SELECT m.i FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bytea[], $5::text[], $6::bigint[]) AS m (key, partition, at, value, id, i)
		WHERE EXISTS (SELECT FROM inbox_discarded d WHERE d.parked_key = m.key AND d.partition = m.partition AND d."offset" = m.at
			AND d.value = m.value AND coalesce(d.headers->>'`+HeaderID+`', '') = m.id)`, keys, partitions, offsets, values, ids, at)
	if err != nil {
		return fmt.Errorf("look for discarded messages: %w", err)
	}
	struck, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return fmt.Errorf("look for discarded messages: %w", err)
	}
	for _, i := range struck {
		s.struck[i] = true
	}
	return nil
}

// sift hands runs of new messages on, of each part until its end or the first message
// that has to be tried again.
func (s *sieve) sift(ctx context.Context) error {
	s.stops = map[int]stop{}
	var run []int
	for i, m := range s.batch {
		id, usable := m.id()
		var refusal error
		switch {
		case s.halted(i):
			continue
		case s.known[i] || s.struck[i]:
			s.duplicate++
			continue
		case !usable:
			refusal = errNoID
		case forgotten(id, s.keptFrom) && !s.in.Sequenced && !s.replay:
			if s.in.DropOld {
				s.dropped++
				continue
			}
			refusal = errOld
		}
		if refusal == nil {
			refusal = s.exhausted
		}
		if refusal == nil {
			run = append(run, i)
			continue
		}
		if err := s.process(ctx, run); err != nil {
			return err
		}
		run = nil
		if !s.halted(i) {
			s.refuse(i, Permanent(refusal))
		}
	}
	return s.process(ctx, run)
}

// process applies what is not behind a dead letter or a failed message: all at once, else each
// half, so that few messages at fault cost few attempts more.
func (s *sieve) process(ctx context.Context, run []int) error {
	flowing := run[:0:0]
	for _, i := range run {
		switch {
		case s.halted(i):
		case s.behind(i):
			s.waiting = append(s.waiting, waiting{i, errBehind})
		default:
			flowing = append(flowing, i)
		}
	}
	if len(flowing) == 0 {
		return nil
	}
	fault, err := s.try(ctx, flowing)
	switch {
	case err != nil:
		return err
	case fault == nil:
		return nil
	case len(flowing) == 1:
		s.refuse(flowing[0], fault)
		return nil
	}
	half := len(flowing) / 2
	if err := s.process(ctx, flowing[:half]); err != nil {
		return err
	}
	return s.process(ctx, flowing[half:])
}

func (s *sieve) behind(i int) bool {
	return s.held[blockedID(s.in.consumer, s.batch[i].Topic, s.batch[i].Key)]
}

// refuse blocks the message's key, or stops its part before the message when it is worth
// another attempt.
func (s *sieve) refuse(i int, reason error) {
	m := s.batch[i]
	if s.replay || !permanent(reason) && s.attempts[i] < s.in.MaxAttempts {
		s.stops[s.parts[i]] = stop{i, reason}
		return
	}
	if s.behind(i) {
		s.waiting = append(s.waiting, waiting{i, errBehind})
		return
	}
	id := blockedID(s.in.consumer, m.Topic, m.Key)
	s.held[id], s.gaps[id] = true, fingerprintOf(reason) == fingerprintGap
	s.waiting = append(s.waiting, waiting{i, reason})
	s.faults = append(s.faults, fault{m, reason})
}

// try applies the messages behind a savepoint. A fault means that nothing of it
// was applied; an error, that the transaction is lost.
func (s *sieve) try(ctx context.Context, run []int) (fault, err error) {
	messages := make([]Message, len(run))
	for n, i := range run {
		messages[n] = s.batch[i]
	}
	savepoint, err := s.tx.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("savepoint: %w", err)
	}
	fault = safely(ctx, s.in.handle, savepoint, messages)
	if fault == nil {
		if fault = savepoint.Commit(ctx); fault == nil {
			s.applied = append(s.applied, messages...)
			return nil, nil
		}
	}
	if !permanent(fault) && (abandoned(ctx, fault) || postgres.TimedOut(fault) && !s.in.well(ctx)) {
		return nil, fault
	}
	if err := savepoint.Rollback(ctx); err != nil {
		return nil, errors.Join(fault, fmt.Errorf("roll back to savepoint: %w", err))
	}
	return fault, nil
}

func safely(ctx context.Context, handle Handler, tx pgx.Tx, batch []Message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = Permanent(fmt.Errorf("the handler panicked: %v\n%s", p, debug.Stack()))
		}
	}()
	return handle(ctx, tx, batch)
}

// leave takes back the ids of what was not applied, and writes the dead letters.
func (s *sieve) leave(ctx context.Context) error {
	var ids []string
	var days []time.Time
	back := func(i int) {
		if s.own[i] {
			id, _ := s.batch[i].id()
			ids, days = append(ids, id), append(days, madeOn(id))
		}
	}
	// What is behind a message that comes again comes again as well.
	s.waiting = slices.DeleteFunc(s.waiting, func(w waiting) bool {
		stop, ok := s.stops[s.parts[w.message]]
		return ok && w.message > stop.message
	})
	for _, w := range s.waiting {
		back(w.message)
	}
	for i := range s.batch {
		if stop, ok := s.stops[s.parts[i]]; ok && i >= stop.message {
			back(i)
		}
	}
	if len(ids) > 0 {
		if _, err := s.tx.Exec(ctx, `
			DELETE FROM inbox_messages m USING unnest($2::date[], $3::text[]) AS back (made_on, id)
			WHERE m.consumer = $1 AND m.made_on = back.made_on AND m.message_id = back.id`, s.in.consumer, days, ids); err != nil {
			return fmt.Errorf("take ids back: %w", err)
		}
	}
	if len(s.waiting) == 0 {
		return nil
	}
	n, err := s.in.block(ctx, s.tx, s.batch, s.waiting)
	s.deadLetters, s.duplicate = n, s.duplicate+len(s.waiting)-n
	return err
}

// closeGaps applies what waits of keys whose missing message may be among those that have
// just become dead letters behind it. In a log of one partition it cannot be: then it costs nothing.
func (s *sieve) closeGaps(ctx context.Context) error {
	var ids []string
	for _, w := range s.waiting {
		m := s.batch[w.message]
		if id := blockedID(s.in.consumer, m.Topic, m.Key); s.gaps[id] && errors.Is(w.reason, errBehind) && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		for r := (Replay{ID: id}); !r.Released && r.Reason == ""; {
			applied, err := s.in.replay(ctx, s.tx, &r)
			if errors.Is(err, ErrNotBlocked) { // what waits was known
				break
			}
			if err != nil {
				return fmt.Errorf("close a gap: %w", err)
			}
			s.applied = append(s.applied, applied...)
		}
	}
	return nil
}
