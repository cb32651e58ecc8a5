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

// batchApply applies the messages in hand inside their transaction: it drops those that are known,
// hands the new ones to the handler, and makes dead letters of those that cannot be applied.
type batchApply struct {
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
func (a *batchApply) enter(ctx context.Context, hand []*part) error {
	var topics []string
	var partitions []int32
	var stood []*int64
	keys := []string{}
	for _, p := range hand {
		topics, partitions, stood = append(topics, p.topic), append(partitions, int32(p.partition)), append(stood, p.progress.next) //nolint:gosec // Kafka's partitions are int32
		for _, m := range p.hand {
			keys = append(keys, blockedID(a.in.consumer, m.Topic, m.Key))
		}
	}
	a.fenced, a.held, a.gaps = map[int]bool{}, map[string]bool{}, map[string]bool{}
	var mine map[partitionKey]bool
	var b pgx.Batch
	b.Queue(`
		SELECT o.topic, o.partition FROM inbox_offsets o JOIN unnest($3::text[], $4::int[], $5::bigint[]) AS s (topic, partition, stood) USING (topic, partition)
		WHERE o.consumer = $1 AND o.generation = $2 AND (s.stood IS NULL OR o.next_offset >= s.stood)
		ORDER BY o.topic, o.partition FOR UPDATE OF o`,
		a.in.consumer, hand[0].generation, topics, partitions, stood).Query(scanPartitions(&mine))
	queueKept(&b, &a.keptFrom)
	b.Queue(`SELECT id, fingerprint FROM inbox_parked_keys WHERE id = ANY ($1) ORDER BY id FOR UPDATE`, keys).Query(func(rows pgx.Rows) error {
		var id, fingerprint string
		_, err := pgx.ForEachRow(rows, []any{&id, &fingerprint}, func() error {
			a.held[id] = true
			if fingerprint == fingerprintGap {
				a.gaps[id] = true
			}
			return nil
		})
		return err
	})
	if err := a.tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("enter: %w", err)
	}
	for i, p := range hand {
		if !mine[p.partitionKey] {
			a.fenced[i] = true
			continue
		}
		for _, m := range p.hand {
			a.batch, a.parts, a.attempts = append(a.batch, m), append(a.parts, i), append(a.attempts, p.progress.attemptsOf(m.Offset))
		}
	}
	return a.note(ctx)
}

// outcomeOf is what became of a part.
func (a *batchApply) outcomeOf(i int, p *part) partOutcome {
	o := partOutcome{taken: len(p.hand), progress: p.progress}
	stop, stopped := a.stops[i]
	if stopped {
		o.taken = slices.IndexFunc(p.hand, func(m Message) bool { return m.Offset == a.batch[stop.message].Offset })
		o.stopped = stop.reason
	}
	if o.taken > 0 {
		o.progress = p.progress.passed(p.hand[o.taken-1])
	}
	if stopped {
		o.progress = p.progress.failedAt(a.batch[stop.message].Offset, o.progress)
	}
	return o
}

// halted: the message's part has stopped before it.
func (a *batchApply) halted(i int) bool {
	_, stopped := a.stops[a.parts[i]]
	return stopped
}

// note writes the ids of all messages that may be applied, and learns which of
// them are new.
func (a *batchApply) note(ctx context.Context) error {
	var ids []string
	var days []time.Time
	var at []int
	for i, m := range a.batch {
		if id, ok := m.id(); ok && !forgotten(id, a.keptFrom) && !a.behind(i) {
			ids, days, at = append(ids, id), append(days, madeOn(id)), append(at, i)
		}
	}
	a.own, a.known = map[int]bool{}, map[int]bool{}
	if err := a.recall(ctx); err != nil || len(ids) == 0 {
		return err
	}
	rows, err := a.tx.Query(ctx, `
		INSERT INTO inbox_messages (consumer, made_on, message_id)
		SELECT $1, made_on, id FROM unnest($2::date[], $3::text[]) AS m (made_on, id) ORDER BY made_on, id
		ON CONFLICT DO NOTHING RETURNING message_id`, a.in.consumer, days, ids)
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
			a.own[i] = true
			delete(fresh, ids[n]) // what comes again in this batch is known
		} else {
			a.known[i] = true
		}
	}
	return nil
}

// recall finds the messages that were discarded and that no id says so of: those
// without one, and those whose id is forgotten. They are known by what they are and
// where: at their offset in a topic that was made anew lies another message.
func (a *batchApply) recall(ctx context.Context) error {
	var keys, ids []string
	var partitions []int32
	var offsets, at []int64
	var values [][]byte
	for i, m := range a.batch {
		if id, ok := m.id(); ok && !forgotten(id, a.keptFrom) {
			continue
		}
		keys, ids = append(keys, blockedID(a.in.consumer, m.Topic, m.Key)), append(ids, clean(m.Headers[HeaderID]))
		partitions, offsets = append(partitions, int32(m.Partition)), append(offsets, m.Offset) //nolint:gosec // Kafka's partitions are int32
		values, at = append(values, orEmpty(m.Value)), append(at, int64(i))
	}
	a.struck = map[int]bool{}
	if len(at) == 0 {
		return nil
	}
	// By the index inbox_discarded_place.
	rows, err := a.tx.Query(ctx, `
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
		a.struck[i] = true
	}
	return nil
}

// apply hands runs of new messages on, of each part until its end or the first message
// that has to be tried again.
func (a *batchApply) apply(ctx context.Context) error {
	a.stops = map[int]stop{}
	var run []int
	for i, m := range a.batch {
		id, usable := m.id()
		var refusal error
		switch {
		case a.halted(i):
			continue
		case a.known[i] || a.struck[i]:
			a.duplicate++
			continue
		case !usable:
			refusal = errNoID
		case forgotten(id, a.keptFrom) && !a.in.Sequenced && !a.replay:
			if a.in.DropOld {
				a.dropped++
				continue
			}
			refusal = errOld
		}
		if refusal == nil {
			refusal = a.exhausted
		}
		if refusal == nil {
			run = append(run, i)
			continue
		}
		if err := a.process(ctx, run); err != nil {
			return err
		}
		run = nil
		if !a.halted(i) {
			a.refuse(i, Permanent(refusal))
		}
	}
	return a.process(ctx, run)
}

// process applies what is not behind a dead letter or a failed message: all at once, else each
// half, so that few messages at fault cost few attempts more.
func (a *batchApply) process(ctx context.Context, run []int) error {
	flowing := run[:0:0]
	for _, i := range run {
		switch {
		case a.halted(i):
		case a.behind(i):
			a.waiting = append(a.waiting, waiting{i, errBehind})
		default:
			flowing = append(flowing, i)
		}
	}
	if len(flowing) == 0 {
		return nil
	}
	fault, err := a.try(ctx, flowing)
	switch {
	case err != nil:
		return err
	case fault == nil:
		return nil
	case len(flowing) == 1:
		a.refuse(flowing[0], fault)
		return nil
	}
	half := len(flowing) / 2
	if err := a.process(ctx, flowing[:half]); err != nil {
		return err
	}
	return a.process(ctx, flowing[half:])
}

func (a *batchApply) behind(i int) bool {
	return a.held[blockedID(a.in.consumer, a.batch[i].Topic, a.batch[i].Key)]
}

// refuse blocks the message's key, or stops its part before the message when it is worth
// another attempt.
func (a *batchApply) refuse(i int, reason error) {
	m := a.batch[i]
	if a.replay || !permanent(reason) && a.attempts[i] < a.in.MaxAttempts {
		a.stops[a.parts[i]] = stop{i, reason}
		return
	}
	if a.behind(i) {
		a.waiting = append(a.waiting, waiting{i, errBehind})
		return
	}
	id := blockedID(a.in.consumer, m.Topic, m.Key)
	a.held[id], a.gaps[id] = true, fingerprintOf(reason) == fingerprintGap
	a.waiting = append(a.waiting, waiting{i, reason})
	a.faults = append(a.faults, fault{m, reason})
}

// try applies the messages behind a savepoint. A fault means that nothing of it
// was applied; an error, that the transaction is lost.
func (a *batchApply) try(ctx context.Context, run []int) (fault, err error) {
	messages := make([]Message, len(run))
	for n, i := range run {
		messages[n] = a.batch[i]
	}
	savepoint, err := a.tx.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("savepoint: %w", err)
	}
	fault = safely(ctx, a.in.handle, savepoint, messages)
	if fault == nil {
		if fault = savepoint.Commit(ctx); fault == nil {
			a.applied = append(a.applied, messages...)
			return nil, nil
		}
	}
	if !permanent(fault) && (abandoned(ctx, fault) || postgres.TimedOut(fault) && !a.in.well(ctx)) {
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
func (a *batchApply) leave(ctx context.Context) error {
	var ids []string
	var days []time.Time
	back := func(i int) {
		if a.own[i] {
			id, _ := a.batch[i].id()
			ids, days = append(ids, id), append(days, madeOn(id))
		}
	}
	// What is behind a message that comes again comes again as well.
	a.waiting = slices.DeleteFunc(a.waiting, func(w waiting) bool {
		stop, ok := a.stops[a.parts[w.message]]
		return ok && w.message > stop.message
	})
	for _, w := range a.waiting {
		back(w.message)
	}
	for i := range a.batch {
		if stop, ok := a.stops[a.parts[i]]; ok && i >= stop.message {
			back(i)
		}
	}
	if len(ids) > 0 {
		if _, err := a.tx.Exec(ctx, `
			DELETE FROM inbox_messages m USING unnest($2::date[], $3::text[]) AS back (made_on, id)
			WHERE m.consumer = $1 AND m.made_on = back.made_on AND m.message_id = back.id`, a.in.consumer, days, ids); err != nil {
			return fmt.Errorf("take ids back: %w", err)
		}
	}
	if len(a.waiting) == 0 {
		return nil
	}
	n, err := a.in.block(ctx, a.tx, a.batch, a.waiting)
	a.deadLetters, a.duplicate = n, a.duplicate+len(a.waiting)-n
	return err
}

// closeGaps applies what waits of keys whose missing message may be among those that have
// just become dead letters behind it. In a log of one partition it cannot be: then it costs nothing.
func (a *batchApply) closeGaps(ctx context.Context) error {
	var ids []string
	for _, w := range a.waiting {
		m := a.batch[w.message]
		if id := blockedID(a.in.consumer, m.Topic, m.Key); a.gaps[id] && errors.Is(w.reason, errBehind) && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		for r := (Replay{ID: id}); !r.Released && r.Reason == ""; {
			applied, err := a.in.replay(ctx, a.tx, &r)
			if errors.Is(err, ErrNotBlocked) { // what waits was known
				break
			}
			if err != nil {
				return fmt.Errorf("close a gap: %w", err)
			}
			a.applied = append(a.applied, applied...)
		}
	}
	return nil
}
