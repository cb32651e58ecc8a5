package order

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/provider"
	"payments/internal/saga"
)

// looks bounds how often one payment is read again because it moved meanwhile.
const looks = 4

// ErrMoving means that the payment changed during every look at it.
var ErrMoving = errors.New("the payment kept moving while it was compared with the provider")

// Compare reads what the provider has of a payment and gives the differences from the
// books, which it leaves as they are. Errors: CodeNotFound, ErrMoving, and those of
// provider.Inspector.
func (s *Service) Compare(ctx context.Context, merchantID, paymentID string) ([]Change, error) {
	return s.look(ctx, merchantID, paymentID, nil)
}

// Follow is Compare, and lets the books follow each change that is Safe. The others are
// written down for an operator. It may be repeated: what is in the books is no difference.
func (s *Service) Follow(ctx context.Context, merchantID, paymentID string) ([]Change, error) {
	changes, err := s.look(ctx, merchantID, paymentID, s.follow)
	if err == nil && len(changes) > 0 {
		s.Due()
	}
	return changes, err
}

// look compares. The provider is asked outside of any transaction; if the books have moved
// since before that, its answer may be older than they are, and it is asked again.
func (s *Service) look(ctx context.Context, merchantID, paymentID string, with func(context.Context, *unit, books, []Change) error) (changes []Change, err error) {
	before, err := readBooks(ctx, s.Pool, merchantID, paymentID)
	if err != nil {
		return nil, err
	}
	for range looks {
		state, err := s.Provider.Inspect(ctx, before.named())
		if err != nil {
			return nil, err
		}
		var after books
		err = s.again(ctx, func(tx pgx.Tx) (err error) {
			var u *unit
			if with != nil {
				if u, err = s.lockPayment(ctx, tx, before); err != nil {
					return err
				}
			}
			if after, err = readBooks(ctx, tx, merchantID, paymentID); err != nil || after.sequence != before.sequence {
				return err
			}
			changes = after.compare(state)
			if with == nil {
				return nil
			}
			if err := with(ctx, u, after, changes); err != nil {
				return err
			}
			return u.write(ctx)
		})
		if err != nil {
			return nil, err
		}
		if after.sequence == before.sequence {
			return changes, nil
		}
		before = after
	}
	return nil, ErrMoving
}

// lockPayment locks the order's saga and then opens the order's unit.
func (s *Service) lockPayment(ctx context.Context, tx pgx.Tx, b books) (*unit, error) {
	if _, err := tx.Exec(ctx, `SELECT 1 FROM sagas WHERE merchant_id = $1 AND id = $2 FOR NO KEY UPDATE`, b.merchantID, b.saga.id); err != nil {
		return nil, fmt.Errorf("lock saga: %w", err)
	}
	return s.open(ctx, tx, b.merchantID, touched{orders: []string{b.orderID}, refunds: b.refundIDs()})
}

// inspection looks at a payment because of news from the provider.
func (s *Service) inspection() saga.Definition {
	look := func(ctx context.Context, req saga.Request) saga.Outcome {
		d, err := decode(req.Data)
		if err != nil {
			return badData(err)
		}
		_, err = s.Follow(ctx, d.MerchantID, d.PaymentID)
		if err == nil {
			return saga.Outcome{Verdict: saga.Succeeded, Reference: d.PaymentID}
		}
		o := saga.Outcome{Verdict: saga.Unknown, Code: codeNotInspected, Detail: err.Error()}
		if errors.Is(err, provider.ErrUnknownID) {
			o.Code = codeUnknownID
		}
		if age := s.age(req.Key); age <= watchFor {
			o.Again = min(max(age/4, leastLook), mostLook)
		}
		return o
	}
	return saga.Definition{
		Name: sagaInspect, Version: 1, Steadfast: true,
		Steps: []saga.Step{{Kind: saga.Retriable, Do: saga.Action{Name: stepInspect, Call: &saga.Call{
			Ready: s.ready, Execute: look, Lookup: look, Record: func(context.Context, saga.Unit, *saga.Instance, saga.Outcome) error { return nil },
		}}}},
		Completed: nothing, Compensated: nothing, Parked: parking(reviewed),
	}
}

// inspect begins a look at a payment, or lets one that waits for its turn take place now.
// One that a worker holds may have its answer already, and is followed by another.
func (s *Service) inspect(ctx context.Context, tx pgx.Tx, d sagaData) error {
	var waiting *string
	var begun int
	// Their subjects are the payment's id with a number behind a slash, which comes before 0.
	err := tx.QueryRow(ctx, `
		SELECT min(id) FILTER (WHERE state = 'running' AND owner IS NULL), count(*) FROM sagas
		WHERE merchant_id = $1 AND definition = $2 AND subject >= $3 AND subject < $3 || '0'`,
		d.MerchantID, sagaInspect, d.PaymentID).Scan(&waiting, &begun)
	if err != nil {
		return fmt.Errorf("look for an inspection under way: %w", err)
	}
	if waiting != nil {
		return saga.Nudge(ctx, tx, d.MerchantID, *waiting, stepInspect)
	}
	d.forget()
	raw, err := d.encode()
	if err != nil {
		return err
	}
	err = s.inspection().Begin(ctx, tx, saga.Begin{
		MerchantID: d.MerchantID, ID: s.IDs.New("sag"), Subject: fmt.Sprintf("%s/%d", d.PaymentID, begun+1), Trace: traceparent(ctx), Data: raw,
	})
	if errors.Is(err, saga.ErrBegun) {
		return nil // another notification has begun it in this instant
	}
	return err
}
