package rekey

import (
	"bytes"
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// shown is what a row of the read model has of the write model's ciphertexts.
type shown struct {
	Merchant, ID         string
	Method               string
	MethodSealed, Mailed []byte
}

func (s shown) equal(o shown) bool {
	return s.Method == o.Method && bytes.Equal(s.MethodSealed, o.MethodSealed) && bytes.Equal(s.Mailed, o.Mailed)
}

// copyToView gives the read model the write model's own ciphertexts: a rebuild has the
// same, and finds no difference. No key is needed for that, so that a row that an event
// from before the rotation has made later is healed even when the old key is gone.
func (c Config) copyToView(ctx context.Context) (n Count, err error) {
	n.Column = "payment_view"
	for last := (shown{}); ; {
		rows, err := c.Read.Query(ctx, `
			SELECT merchant_id, payment_id, payment_method, payment_method_ciphertext, customer_email_ciphertext FROM payment_view
			WHERE (merchant_id, payment_id) > ($1, $2) ORDER BY merchant_id, payment_id LIMIT $3`, last.Merchant, last.ID, c.Batch)
		if err != nil {
			return n, fmt.Errorf("read: %w", err)
		}
		page, err := pgx.CollectRows(rows, pgx.RowToStructByPos[shown])
		if err != nil || len(page) == 0 {
			return n, err
		}
		last = page[len(page)-1]
		n.Values += int64(len(page))
		var old []shown
		for _, s := range page {
			if !c.Methods.Current(s.Method, s.MethodSealed) || s.Mailed != nil && !c.Cipher.Current(s.Mailed) {
				old = append(old, s)
			}
		}
		written, err := c.copy(ctx, old)
		if err != nil {
			return n, err
		}
		n.Renewed += written
		n.Older += int64(len(old)) - written
	}
}

// copy leaves what the write model has no better of, and what has changed meanwhile.
func (c Config) copy(ctx context.Context, old []shown) (written int64, err error) {
	if len(old) == 0 || c.Check {
		return 0, nil
	}
	merchants, ids := make([]string, len(old)), make([]string, len(old))
	have := map[string]shown{}
	for i, s := range old {
		merchants[i], ids[i], have[s.ID] = s.Merchant, s.ID, s
	}
	rows, err := c.Write.Query(ctx, `
		SELECT p.merchant_id, p.id, p.payment_method, p.payment_method_ciphertext, o.customer_email_ciphertext
		FROM payments p JOIN orders o ON o.merchant_id = p.merchant_id AND o.id = p.order_id
		WHERE (p.merchant_id, p.id) IN (SELECT * FROM unnest($1::text[], $2::text[]))`, merchants, ids)
	if err != nil {
		return 0, fmt.Errorf("read the write model: %w", err)
	}
	truth, err := pgx.CollectRows(rows, pgx.RowToStructByPos[shown])
	if err != nil {
		return 0, fmt.Errorf("read the write model: %w", err)
	}
	var b pgx.Batch
	for _, s := range truth {
		if was := have[s.ID]; !s.equal(was) {
			b.Queue(`
				UPDATE payment_view SET payment_method = $3, payment_method_ciphertext = $4, customer_email_ciphertext = $5
				WHERE merchant_id = $1 AND payment_id = $2 AND payment_method = $6 AND payment_method_ciphertext IS NOT DISTINCT FROM $7
					AND customer_email_ciphertext IS NOT DISTINCT FROM $8`,
				s.Merchant, s.ID, s.Method, s.MethodSealed, s.Mailed, was.Method, was.MethodSealed, was.Mailed)
		}
	}
	results := c.Read.SendBatch(ctx, &b)
	for range b.Len() {
		tag, err := results.Exec()
		if err != nil {
			_ = results.Close() // tells the same
			return 0, fmt.Errorf("write: %w", err)
		}
		written += tag.RowsAffected()
	}
	if err := results.Close(); err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	return written, nil
}
