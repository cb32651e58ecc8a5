package inbox

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// part is what one partition has in a call of ApplyAll. Its position is locked.
type part struct {
	*position
	at    int       // in the call's batches
	rest  []Message // not taken in yet
	taken int
	err   error // nothing more of it is tried in this call
	hand  []Message
}

// tried is how often the first message was in hand in attempts that have not ended well.
func (p *part) tried() int { return p.progress.attemptsOf(p.rest[0].Offset) }

// next are the parts that still have something to take in.
func next(parts []*part) (open []*part) {
	for _, p := range parts {
		if p.err == nil && len(p.rest) > 0 {
			open = append(open, p)
		}
	}
	return open
}

// suspects take turns, all inboxes of a process together: when the process dies
// of one of them, no other is in hand, and no other's attempt is counted for it.
var suspects = make(chan struct{}, 1) //nolint:gochecknoglobals // a process dies as a whole

// minCrashes of a message before it is blamed for them. What dies first is a batch, and
// a message is to blame only if it was in hand alone.
const minCrashes = 2

// pick says what comes in hand of the parts: all that begin with a message that was in no
// failed attempt. If there are none, half of the messages with the most failed attempts,
// until only one attempt is left, which is for one message alone. spent is true for a
// message that has had all of its attempts.
func (in *Inbox) pick(open []*part) (hand []*part, attempts int, spent bool) {
	for _, p := range open {
		attempts = max(attempts, p.tried())
	}
	for _, p := range open {
		if p.tried() == 0 {
			attempts = 0
		}
	}
	total := 0
	for _, p := range open {
		if p.tried() != attempts {
			continue
		}
		p.hand = p.rest
		until := p.progress.group(p.rest[0].Offset).until
		if end := slices.IndexFunc(p.rest, func(m Message) bool { return m.Offset >= until }); end > 0 {
			p.hand = p.rest[:end]
		}
		hand, total = append(hand, p), total+len(p.hand)
	}
	if attempts == 0 {
		return hand, 0, false
	}
	most := max(in.MaxAttempts, minCrashes)
	n := (total + 1) / 2
	if attempts >= most-1 {
		n = 1
	}
	first := hand[0]
	group := first.progress.group(first.rest[0].Offset)
	for i, p := range hand {
		p.hand = p.hand[:min(n, len(p.hand))]
		if n -= len(p.hand); n == 0 {
			hand = hand[:i+1]
			break
		}
	}
	return hand, attempts, attempts >= most && group.until == group.from+1
}

// attempt takes in what pick has chosen, or a part of it. The attempt is on record before
// the handler is called.
func (in *Inbox) attempt(ctx context.Context, open []*part) {
	hand, attempts, spent := in.pick(open)
	if attempts > 0 {
		select {
		case suspects <- struct{}{}:
			defer func() { <-suspects }()
		case <-ctx.Done():
			fail(open, ctx.Err())
			return
		}
	}
	before := make([]progress, len(hand))
	for i, p := range hand {
		before[i] = p.progress
	}
	h, err := in.hold(ctx)
	if err != nil {
		fail(hand, err)
		return
	}
	defer h.release(ctx)
	var exhausted error
	if spent {
		if exhausted = hand[0].failure; exhausted == nil {
			exhausted = fmt.Errorf("%w %d times while the message was in hand", errDied, attempts)
		}
	} else {
		if hand, before, err = in.begin(ctx, h, hand, before); err != nil || len(hand) == 0 {
			fail(hand, err)
			return
		}
	}
	out, err := in.commit(ctx, h, hand, exhausted)
	switch {
	case err == nil:
		in.metrics.count(out)
		in.tell(ctx, out)
		for i, p := range hand {
			p.settle(out.of[i])
		}
		return
	case refused(err):
		for _, p := range hand {
			p.failure = err
		}
	default:
		// The attempt says nothing about the messages. If the record cannot be put right,
		// the next process takes them for suspects and applies them in halves.
		for i, p := range hand {
			p.progress = before[i]
		}
		in.forgive(ctx, h, hand)
	}
	fail(hand, err)
}

func fail(parts []*part, err error) {
	for _, p := range parts {
		p.err = err
	}
}

// settle takes over what was committed of the part.
func (p *part) settle(o partOutcome) {
	p.err = o.stopped
	if errors.Is(p.err, ErrFenced) {
		p.claimed = false
		return
	}
	p.progress, p.failure = o.progress, o.stopped
	p.rest, p.taken = p.rest[o.taken:], p.taken+o.taken
}

// begin records the attempt of what is in hand, and leaves the parts out that are fenced.
func (in *Inbox) begin(ctx context.Context, h *hold, hand []*part, before []progress) (owned []*part, stood []progress, err error) {
	for _, p := range hand {
		p.progress = p.progress.begin(p.hand)
	}
	var b pgx.Batch
	h.queueLock(&b, in.consumer, hand)
	mine, err := in.record(ctx, h.conn, &b, hand)
	for i, p := range hand {
		switch {
		case err != nil:
			p.progress = before[i]
		case !mine[p.partitionKey]:
			p.progress, p.claimed, p.err = before[i], false, ErrFenced
		default:
			owned, stood = append(owned, p), append(stood, before[i])
		}
	}
	if err != nil {
		return hand, before, fmt.Errorf("record the attempt: %w", err)
	}
	return owned, stood, nil
}

// record writes the attempts down on their own, behind what is in b, before the handler can
// kill the process, and tells which partitions are still this process's.
func (in *Inbox) record(ctx context.Context, on sender, b *pgx.Batch, hand []*part) (mine map[partitionKey]bool, err error) {
	rows := make([]progressRow, len(hand))
	for i, p := range hand {
		rows[i] = progressRow{p.partitionKey, p.progress, p.progress.next}
	}
	in.queueProgress(b, hand[0].generation, rows, &mine)
	return mine, on.SendBatch(ctx, b).Close()
}

func (in *Inbox) forgive(ctx context.Context, h *hold, hand []*part) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	var b pgx.Batch
	b.Queue(`SELECT ` + notDurable)
	if _, err := in.record(ctx, h.sender(), &b, hand); err != nil {
		in.Log.DebugContext(ctx, "an attempt that tells nothing stays counted", "error", err)
	}
}
