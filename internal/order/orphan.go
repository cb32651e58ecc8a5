package order

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/provider"
	"payments/internal/saga"
)

const (
	// watchFor is how long an order that turned back from an authorization that was
	// sent and never found looks for it: longer than any provider honors a key.
	watchFor = 24 * time.Hour
	// The pauses between two looks grow with the age of the watch.
	leastLook, mostLook = 5 * time.Second, 10 * time.Minute
)

// watch begins the search for an authorization that may yet be carried out.
func (s *Service) watch(ctx context.Context, tx pgx.Tx, i *saga.Instance, d sagaData) error {
	d.AuthorizationKey = saga.Key(i.ID, stepAuthorize)
	return s.beginOrphan(ctx, tx, d, d.PaymentID, i.Trace, s.Horizon)
}

func (s *Service) beginOrphan(ctx context.Context, tx pgx.Tx, d sagaData, subject, trace string, after time.Duration) error {
	d.Authorization, d.AuthorizationUntil = "", s.IDs.Now().Add(s.Horizon)
	d.forget() // it only ever looks
	raw, err := d.encode()
	if err != nil {
		return err
	}
	return s.orphan().Begin(ctx, tx, saga.Begin{
		MerchantID: d.MerchantID, ID: s.IDs.New(payment.PrefixSaga), Subject: subject, Trace: trace, Data: raw, After: after,
	})
}

// finding asks the provider for the lost authorization until it is there, or the
// watch is over. It only ever looks.
func (s *Service) finding() *saga.Call {
	look := func(ctx context.Context, req saga.Request) saga.Outcome {
		d, err := decode(req.Data)
		if err != nil {
			return badData(err)
		}
		o := s.outcome(provider.Authorization, s.Provider.Lookup(ctx, d.operation(provider.Authorization, d.AuthorizationKey, d.AuthorizationUntil)))
		age := s.age(req.Key)
		switch open := o.Verdict == saga.Unknown || o.Verdict == saga.NotFound; {
		case open && age <= watchFor:
			o.Again = min(max(age/4, leastLook), mostLook)
		case o.Verdict == saga.NotFound:
			return saga.Outcome{Verdict: saga.Rejected, Code: codeNothingFound, Detail: "The authorization was never given."}
		}
		return o
	}
	return &saga.Call{Ready: s.ready, Execute: look, Lookup: look, Record: recording(func(_ context.Context, _ *unit, _ *saga.Instance, d *sagaData, o saga.Outcome) error {
		if o.Verdict == saga.Succeeded {
			d.Authorization = o.Reference
		}
		return nil
	})}
}

// age of the saga whose step has this key, by its id.
func (s *Service) age(key string) time.Duration {
	id, _, _ := saga.OfKey(key)
	made, ok := payment.IDTime(payment.PrefixSaga, id)
	if !ok {
		return 0
	}
	return s.IDs.Now().Sub(made)
}

// suspect begins or nudges the search for a late authorization of a payment that
// has turned back. It is the order's own request that is searched for, whatever the
// notification names.
func (s *Service) suspect(ctx context.Context, tx pgx.Tx, d sagaData, sagaID string) error {
	var searching *string
	var over bool
	var searches int
	// Their subjects are the payment's id, and the id with a number behind a slash, which comes before 0.
	err := tx.QueryRow(ctx, `
		SELECT min(id) FILTER (WHERE due_at IS NOT NULL), coalesce(bool_or(state IN ('completed', 'parked')), false), count(*) FROM sagas
		WHERE merchant_id = $1 AND definition = $2 AND subject >= $3 AND subject < $3 || '0'`,
		d.MerchantID, sagaOrphan, d.PaymentID).Scan(&searching, &over, &searches)
	switch {
	case err != nil:
		return fmt.Errorf("look for a search under way: %w", err)
	case over: // it is voided, or waits for a person
		return nil
	case searching != nil:
		return saga.Nudge(ctx, tx, d.MerchantID, *searching, stepFind)
	}
	d.AuthorizationKey = saga.Key(sagaID, stepAuthorize)
	if err := s.beginOrphan(ctx, tx, d, fmt.Sprintf("%s/%d", d.PaymentID, searches+1), "", 0); !errors.Is(err, saga.ErrBegun) {
		return err
	}
	return nil // another notification has begun it in this instant
}
