package readmodel

import (
	"context"
	"time"

	"payments/internal/access"
	"payments/internal/payment"
)

const (
	// A payment younger than this may be committed and not projected yet.
	freshFor   = 10 * time.Second
	clockSkew  = time.Second // of the process that made the id
	freshWait  = 2 * time.Second
	firstPause = 10 * time.Millisecond
	maxPause   = 250 * time.Millisecond
)

// Get waits up to two seconds for the row of an id that was made within the last
// ten: the client that has just posted asks before the projector has come so far.
// There is no telling "not there" from "not yours": both are CodeNotFound.
func (q *Queries) Get(ctx context.Context, scope access.Scope, id string) (Payment, error) {
	var wait time.Duration
	if made, ok := payment.IDTime(payment.PrefixPayment, id); ok {
		if age := q.now().Sub(made); age < freshFor && age > -clockSkew {
			wait = freshWait
		}
	}
	p, found, err := q.poll(ctx, scope, id, wait, func(Payment) bool { return true })
	if err != nil {
		return Payment{}, err
	}
	if !found {
		return Payment{}, payment.Errorf(payment.CodeNotFound, "There is no such payment.")
	}
	return p, nil
}

// poll reads, with growing pauses, until the row is there and done, or the wait
// is over. Its error comes with the last row it saw.
func (q *Queries) poll(ctx context.Context, scope access.Scope, id string, wait time.Duration,
	done func(Payment) bool,
) (last Payment, found bool, err error) {
	over := time.NewTimer(wait)
	defer over.Stop()
	pause := time.NewTimer(firstPause)
	defer pause.Stop()
	for length := firstPause; ; {
		p, ok, err := q.read(ctx, scope, id)
		if err != nil {
			return last, found, err
		}
		if ok {
			last, found = p, true
		}
		if wait == 0 || found && done(last) {
			return last, found, nil
		}
		length = min(length*3/2, maxPause)
		pause.Reset(length)
		select {
		case <-ctx.Done():
			return last, found, ctx.Err()
		case <-over.C:
			return last, found, nil
		case <-pause.C:
		}
	}
}
