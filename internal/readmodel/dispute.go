package readmodel

import (
	"time"

	"payments/internal/payment"
)

// disputeOf keeps whole seconds, as the write model does, so that a rebuilt row is the same.
func disputeOf(d payment.DisputeData) *payment.Dispute {
	view := payment.Dispute{ID: d.ID, Status: d.Status, Amount: d.Amount, Currency: d.Currency, Reason: d.Reason, OpenedAt: d.OpenedAt.UTC().Truncate(time.Second)}
	if d.RespondBy != nil {
		by := d.RespondBy.UTC().Truncate(time.Second)
		view.RespondBy = &by
	}
	return &view
}

// sourceDispute is a payment's dispute in the write model, as disputeOf makes it of its
// events. p is the payment.
const sourceDispute = `(
	SELECT jsonb_build_object('id', d.id, 'status', d.status, 'amount', d.amount, 'currency', d.currency, 'reason', d.reason,
		'respond_by', to_char(d.respond_by AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
		'opened_at', to_char(d.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
	FROM disputes d WHERE d.merchant_id = p.merchant_id AND d.payment_id = p.id ORDER BY d.updated_at DESC, d.id DESC LIMIT 1)`
