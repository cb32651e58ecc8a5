package rekey

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/secret"
)

// Config of a run. The pools are the owner's: stored answers are not the service's to change.
type Config struct {
	Write, Read *pgxpool.Pool // twice the same where both models have one database
	Pepper      *secret.Pepper
	Cipher      *secret.Cipher
	Methods     *secret.Tokens
	Batch       int  // rows that are read, and at most written, at once; 500 if 0
	Check       bool // count only
	// Done is called with what was looked at so far of a column. Optional.
	Done func(column string, n int64)
}

// Count of one column.
type Count struct {
	Column  string
	Values  int64 // that are protected, or should be
	Renewed int64
	// Older are under an older key, or from before they were protected at all: what
	// changed under the run's hands, what a check has found, and what no run can renew.
	Older int64
	// Unreadable are under none of the keys, or changed by somebody.
	Unreadable int64
}

// Left reports whether an older key is still needed for the column, or something is
// wrong with it.
func (c Count) Left() bool { return c.Older+c.Unreadable > 0 }

// Run goes over every column. What it counts before an error holds.
func Run(ctx context.Context, c Config) (counts []Count, err error) {
	if c.Batch == 0 {
		c.Batch = 500
	}
	if c.Done == nil {
		c.Done = func(string, int64) {}
	}
	for _, col := range c.columns() {
		n, err := c.renew(ctx, col)
		counts = append(counts, n)
		if err != nil {
			return counts, fmt.Errorf("%s: %w", col.name, err)
		}
	}
	n, err := c.copyToView(ctx) // behind the write model, which it copies from
	counts = append(counts, n)
	if err != nil {
		return counts, fmt.Errorf("%s: %w", n.Column, err)
	}
	n, err = c.countKeys(ctx)
	return append(counts, n), err
}

// row is one value. Its key has as many parts as the table's primary key.
type row struct {
	Merchant, ID string
	Number       int
	Bound        string // what the ciphertext is bound to
	Text         string // beside the ciphertext: a fingerprint, or what is not encrypted yet
	Ciphertext   []byte
}

// column is one kind of value. read takes the key behind which it begins and the number
// of rows, in the order of the primary key; write takes the rows' keys, what was read
// of them and what replaces it.
type column struct {
	name, read, write string
	pool              *pgxpool.Pool
	// renewed gives the value under the primary keys, false when it is that already.
	renewed func(r row) (row, bool, error)
}

// errKept: the value has to stay as it is for now.
var errKept = errors.New("is needed as it is")

func (c Config) renew(ctx context.Context, col column) (n Count, err error) {
	n.Column = col.name
	for last := (row{}); ; {
		rows, err := c.page(ctx, col, last)
		if err != nil || len(rows) == 0 {
			return n, err
		}
		last = rows[len(rows)-1]
		var old, fresh []row
		for _, r := range rows {
			if r.Text == "" && r.Ciphertext == nil {
				continue
			}
			n.Values++
			switch made, changed, err := col.renewed(r); {
			case errors.Is(err, errKept):
				n.Older++
			case err != nil:
				n.Unreadable++
			case changed:
				old, fresh = append(old, r), append(fresh, made)
			}
		}
		written := int64(0)
		if len(old) > 0 && !c.Check {
			if written, err = write(ctx, col, old, fresh); err != nil {
				return n, err
			}
		}
		n.Renewed += written
		n.Older += int64(len(old)) - written
		c.Done(col.name, n.Values)
	}
}

func (c Config) page(ctx context.Context, col column, last row) ([]row, error) {
	rows, err := col.pool.Query(ctx, col.read, last.Merchant, last.ID, last.Number, c.Batch)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	page, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return page, nil
}

func write(ctx context.Context, col column, old, fresh []row) (int64, error) {
	merchants, ids, numbers := make([]string, len(old)), make([]string, len(old)), make([]int, len(old))
	texts, ciphertexts, newTexts, newCiphertexts := make([]string, len(old)), make([][]byte, len(old)), make([]string, len(old)), make([][]byte, len(old))
	for i, r := range old {
		merchants[i], ids[i], numbers[i] = r.Merchant, r.ID, r.Number
		texts[i], ciphertexts[i], newTexts[i], newCiphertexts[i] = r.Text, r.Ciphertext, fresh[i].Text, fresh[i].Ciphertext
	}
	tag, err := col.pool.Exec(ctx, `
		WITH u AS (
			SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::bytea[], $6::text[], $7::bytea[])
				AS u (merchant_id, id, number, was_text, was, text, ciphertext))
		`+col.write, merchants, ids, numbers, texts, ciphertexts, newTexts, newCiphertexts)
	if err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	return tag.RowsAffected(), nil
}

// countKeys counts API keys that work by an older pepper. Only their next use can renew
// one: nobody else has what the MAC is of.
func (c Config) countKeys(ctx context.Context) (n Count, err error) {
	n.Column = "api_keys.mac"
	rows, err := c.Write.Query(ctx, `SELECT mac FROM api_keys WHERE approved_at IS NOT NULL AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())`)
	if err != nil {
		return n, fmt.Errorf("read api keys: %w", err)
	}
	var mac []byte
	if _, err := pgx.ForEachRow(rows, []any{&mac}, func() error {
		n.Values++
		if !c.Pepper.Current(mac) {
			n.Older++
		}
		return nil
	}); err != nil {
		return n, fmt.Errorf("read api keys: %w", err)
	}
	return n, nil
}
