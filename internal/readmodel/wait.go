package readmodel

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/access"
	"payments/internal/payment"
	"payments/internal/postgres"
)

// readAfterWait bounds AwaitPosition: many times the lag of a pipeline that is
// well, and short enough that a client with a deadline still gets an answer.
const readAfterWait = 5 * time.Second

// lookEvery is the pause between two looks at rows that are waited for and were not changed by
// this process, which wakes whoever waits (Changed).
const lookEvery = 25 * time.Millisecond

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
	k := rowID{at.MerchantID, at.PaymentID}
	read, err := q.sequences(ctx, []rowID{k})
	return read[k] >= at.Sequence, err
}

// Changed hints that a commit of this process has changed the read model. Whoever waits for a
// position looks.
func (q *Queries) Changed() { q.positions.Wake() }

// AwaitPosition returns when the projection has passed the position, or after
// five seconds with CodeReadAfterTimeout. It does not look at once (Passed).
func (q *Queries) AwaitPosition(ctx context.Context, scope access.Scope, at Position) error {
	if merchantID, all := scope.Merchant(); !all && merchantID != at.MerchantID {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, readAfterWait)
	defer cancel()
	_, err := q.positions.Wait(waiting, rowID{at.MerchantID, at.PaymentID}, func(sequence int64) bool { return sequence >= at.Sequence })
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case waiting.Err() != nil:
		return payment.Errorf(payment.CodeReadAfterTimeout,
			"What was asked to be read after has not arrived here yet. Repeat the request, or leave Read-After out to read what is known.")
	default:
		return err
	}
}

// sequences are those of the rows that there are.
func (q *Queries) sequences(ctx context.Context, of []rowID) (map[rowID]int64, error) {
	merchants, payments := make([]string, len(of)), make([]string, len(of))
	for i, k := range of {
		merchants[i], payments[i] = k.merchant, k.payment
	}
	rows, err := postgres.Query(ctx, q.pool, `
		SELECT v.merchant_id, v.payment_id, v.sequence FROM unnest($1::text[], $2::text[]) AS k (merchant_id, payment_id), LATERAL (
			SELECT merchant_id, payment_id, sequence FROM payment_view WHERE merchant_id = k.merchant_id AND payment_id = k.payment_id OFFSET 0) v`,
		merchants, payments)
	if err != nil {
		return nil, fmt.Errorf("read the positions that are waited for: %w", err)
	}
	read := make(map[rowID]int64, len(of))
	var k rowID
	var sequence int64
	if _, err := pgx.ForEachRow(rows, []any{&k.merchant, &k.payment, &sequence}, func() error {
		read[k] = sequence
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the positions that are waited for: %w", err)
	}
	return read, nil
}
