package readmodel

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/readmodel/term"
)

// insertTerms writes what new payments are found by. References never change, so
// that it is done once a payment.
const insertTerms = `
	INSERT INTO payment_term (merchant_id, term, payment_id)
	SELECT merchant_id, term, payment_id FROM json_to_recordset($1::json) AS t (merchant_id text, term text, payment_id text)
	ON CONFLICT (merchant_id, term, payment_id) DO NOTHING`

type termRow struct {
	MerchantID string `json:"merchant_id"`
	Term       string `json:"term"`
	PaymentID  string `json:"payment_id"`
}

func termsOf(made []*viewRow) (rows []termRow) {
	for _, r := range made {
		for _, t := range term.Of(r.Placed.Reference, r.Placed.Customer.Reference) {
			rows = append(rows, termRow{r.MerchantID, t, r.PaymentID})
		}
	}
	return rows
}

// termBatch is how many terms a rebuild holds in memory.
const termBatch = 20_000

// findable makes the new payments' terms, which stand in no table of the write model.
func (b *rebuild) findable(ctx context.Context) error {
	read, err := session(ctx, b.Read)
	if err != nil {
		return err
	}
	defer func() { _ = read.Close(context.WithoutCancel(ctx)) }()
	var batch [][]any
	flush := func() error {
		_, err := b.conn.CopyFrom(ctx, pgx.Identifier{schemaNext, "payment_term"}, []string{"merchant_id", "term", "payment_id"}, pgx.CopyFromRows(batch))
		batch = batch[:0]
		return err
	}
	rows, err := read.Query(ctx, `SELECT merchant_id, payment_id, order_reference, customer_reference FROM payment_view_next.payment_view`)
	if err != nil {
		return fmt.Errorf("make terms: %w", err)
	}
	var merchantID, paymentID, order, customer string
	_, err = pgx.ForEachRow(rows, []any{&merchantID, &paymentID, &order, &customer}, func() error {
		for _, t := range term.Of(order, customer) {
			batch = append(batch, []any{merchantID, t, paymentID})
		}
		if len(batch) < termBatch {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return fmt.Errorf("make terms: %w", err)
	}
	return nil
}
