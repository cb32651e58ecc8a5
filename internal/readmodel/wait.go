package readmodel

import (
	"context"
	"time"

	"payments/internal/access"
	"payments/internal/payment"
)

// readAfterWait bounds AwaitPosition: many times the lag of a pipeline that is
// well, and short enough that a client with a deadline still gets an answer.
const readAfterWait = 5 * time.Second

// The pauses between two looks at a row that is waited for.
const (
	firstPause = 10 * time.Millisecond
	maxPause   = 250 * time.Millisecond
)

// Get reads a payment of the scope as it is projected by now. It does not wait. It does not tell
// "not there" from "not yours": both are CodeNotFound.
func (q *Queries) Get(ctx context.Context, scope access.Scope, id string) (Payment, error) {
	p, found, err := q.read(ctx, scope, id)
	if err != nil {
		return Payment{}, err
	}
	if !found {
		return Payment{}, payment.Errorf(payment.CodeNotFound, "There is no such payment.")
	}
	return p, nil
}

// Passed reports whether the projection has passed the position. It does not wait. A position of
// another merchant than the scope's counts as passed, so that nothing can be told from the time
// that AwaitPosition takes.
func (q *Queries) Passed(ctx context.Context, scope access.Scope, at Position) (bool, error) {
	if merchantID, all := scope.Merchant(); !all && merchantID != at.MerchantID {
		return true, nil
	}
	p, found, err := q.read(ctx, scope, at.PaymentID)
	return found && p.Sequence >= at.Sequence, err
}

// AwaitPosition returns when the projection has passed the position, or after
// five seconds with CodeReadAfterTimeout.
func (q *Queries) AwaitPosition(ctx context.Context, scope access.Scope, at Position) error {
	over := time.NewTimer(readAfterWait)
	defer over.Stop()
	pause := time.NewTimer(firstPause)
	defer pause.Stop()
	for length := firstPause; ; {
		passed, err := q.Passed(ctx, scope, at)
		if passed || err != nil {
			return err
		}
		length = min(length*3/2, maxPause)
		pause.Reset(length)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over.C:
			return payment.Errorf(payment.CodeReadAfterTimeout,
				"What was asked to be read after has not arrived here yet. Repeat the request, or leave Read-After out to read what is known.")
		case <-pause.C:
		}
	}
}
