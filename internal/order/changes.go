package order

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/postgres"
)

// ProviderChange is what was found at the provider, as it is kept. Operator, Holder and
// Reason are of who accepted it.
type ProviderChange struct {
	MerchantID, ID, PaymentID    string
	Kind, Subject, Detail, State string
	Amount                       int64
	FoundAt                      time.Time
	DecidedAt                    *time.Time
	Operator, Holder, Reason     *string
}

// ProviderChangeStates lists the states of a change.
func ProviderChangeStates() []string { return []string{"open", "recorded", "accepted", "gone"} }

const selectChange = `
	SELECT merchant_id, id, payment_id, kind, subject, detail, state, amount::bigint, found_at, decided_at, operator, holder, reason FROM provider_changes `

// Changes lists what was found at the provider, oldest first, behind an id. An empty state
// is any.
func (o Operations) Changes(ctx context.Context, state, after string, limit int) ([]ProviderChange, error) {
	// provider_changes_open serves what is open; a parameter could not use it.
	which := `state = $1`
	switch state {
	case "":
		which = `$1 = ''`
	case "open":
		which = `state = 'open' AND $1 = 'open'`
	}
	rows, err := o.orders.Pool.Query(ctx, selectChange+`WHERE `+which+` AND id > $2 ORDER BY id LIMIT $3`, state, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list changes: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ProviderChange])
	if err != nil {
		return nil, fmt.Errorf("list changes: %w", err)
	}
	return list, nil
}

// AcceptChange takes note of a change for good: nobody is alerted of it any more. Asked
// again, it does nothing. Errors: CodeNotFound; CodeSagaState if the change does not wait
// for an operator; CodeInvalid.
func (o Operations) AcceptChange(ctx context.Context, by By, id string) (c ProviderChange, err error) {
	if err := checkAct(by, Verdict{}); err != nil {
		return c, err
	}
	err = postgres.InTx(ctx, o.orders.Pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, selectChange+`WHERE id = $1 FOR NO KEY UPDATE`, id)
		if err != nil {
			return fmt.Errorf("read change: %w", err)
		}
		c, err = pgx.CollectOneRow(rows, pgx.RowToStructByPos[ProviderChange])
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return payment.Errorf(payment.CodeNotFound, "There is no such change.")
		case err != nil:
			return fmt.Errorf("read change: %w", err)
		case c.State == "accepted":
			return nil
		case c.State != "open":
			return payment.Errorf(payment.CodeSagaState, "The change does not wait for an operator.")
		}
		rows, err = tx.Query(ctx, `
			UPDATE provider_changes SET state = 'accepted', decided_at = clock_timestamp(), operator = $3, holder = $4, reason = $5
			WHERE merchant_id = $1 AND id = $2
			RETURNING merchant_id, id, payment_id, kind, subject, detail, state, amount::bigint, found_at, decided_at, operator, holder, reason`,
			c.MerchantID, id, by.Operator, by.Holder, by.Reason)
		if err != nil {
			return fmt.Errorf("accept change: %w", err)
		}
		if c, err = pgx.CollectOneRow(rows, pgx.RowToStructByPos[ProviderChange]); err != nil {
			return fmt.Errorf("accept change: %w", err)
		}
		return nil
	})
	return c, err
}
