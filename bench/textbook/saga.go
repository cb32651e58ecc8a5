package textbook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/jackc/pgx/v5"
)

// lease is how long a claimed saga is nobody else's.
const lease = "30 seconds"

// drive claims one saga and does its next step. A step that fails is due again when its lease ends.
func (s *service) drive(ctx context.Context) (more bool, err error) {
	var p Payment
	var step int
	var authorization *string
	err = s.pool.QueryRow(ctx, `
		UPDATE sagas SET due_at = now() + interval '`+lease+`' WHERE id = (
			SELECT id FROM sagas WHERE state = 'running' AND due_at <= now() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
		RETURNING id, payment_id, step`).Scan(&p.SagaID, &p.ID, &step)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("claim a saga: %w", err)
	}
	if err := s.pool.QueryRow(ctx, `
		SELECT order_id, merchant_id, amount, currency, payment_method, authorization_reference FROM payments WHERE id = $1`, p.ID).
		Scan(&p.OrderID, &p.MerchantID, &p.Amount, &p.Currency, &p.Method, &authorization); err != nil {
		return false, fmt.Errorf("read the payment: %w", err)
	}
	rows, err := s.pool.Query(ctx, `SELECT sku, quantity, unit_amount FROM order_lines WHERE order_id = $1 ORDER BY line`, p.OrderID)
	if err != nil {
		return false, err
	}
	if p.Lines, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Line]); err != nil {
		return false, fmt.Errorf("read the lines: %w", err)
	}
	return true, s.step(ctx, p, step, authorization)
}

var errDeclined = errors.New("declined")

// step calls the provider outside of any transaction, and records the outcome in one.
func (s *service) step(ctx context.Context, p Payment, step int, authorization *string) error {
	var record func(Exec) error
	var reference string
	var err error
	switch step {
	case 0:
		record = func(exec Exec) error { return Reserve(ctx, exec, p) }
	case 1:
		reference, err = s.call(ctx, "/v1/authorizations", p.SagaID+"-authorize", map[string]any{
			"reference": p.ID, "amount": p.Amount, "currency": p.Currency, "payment_method": p.Method,
		})
		record = func(exec Exec) error { return Authorize(ctx, exec, p, reference) }
	case 2:
		reference, err = s.call(ctx, "/v1/captures", p.SagaID+"-capture", map[string]any{
			"reference": p.ID, "amount": p.Amount, "currency": p.Currency, "authorization": authorization,
		})
		record = func(exec Exec) error { return Capture(ctx, exec, p, reference) }
	case 3:
		record = func(exec Exec) error { return Confirm(ctx, exec, p) }
	}
	switch {
	case errors.Is(err, errDeclined):
		record = func(exec Exec) error { return Fail(ctx, exec, p) }
	case err != nil:
		return nil //nolint:nilerr // what is unknown is asked again with the same key when the lease ends
	}
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return record(in(tx)) })
}

func (s *service) call(ctx context.Context, path, key string, members map[string]any) (reference string, err error) {
	body, err := json.Marshal(members)
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Simulator+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", key)
	answer, err := s.http.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var operation struct{ ID string }
	if err := json.NewDecoder(answer.Body).Decode(&operation); err != nil {
		return "", err
	}
	switch answer.StatusCode {
	case http.StatusOK, http.StatusCreated:
		return operation.ID, nil
	case http.StatusPaymentRequired:
		return "", errDeclined
	}
	return "", fmt.Errorf("the provider answered %d", answer.StatusCode)
}
