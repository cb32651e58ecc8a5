package audit

// column is one thing that a merchant can see of a payment, as both models have it, as
// text. A new column of payment_view belongs here: TestEveryColumnOfTheReadModelIsCompared
// fails without it.
type column struct{ name, read, written string }

// columns of payment_view v, and of the write model's payments p and orders o. An order's
// updated_at is the time of its newest event, but for the first, whose time is created_at.
// A ciphertext is another one after each encryption: only whether there is one is compared.
var columns = []column{
	{"order_id", `v.order_id`, `p.order_id`},
	{"status", `v.status`, `p.status`},
	{"currency", `v.currency`, `p.currency`},
	{"amount", `v.amount::text`, `p.amount::text`},
	{"amount_captured", `v.amount_captured::text`, `p.amount_captured::text`},
	{"amount_refunded", `v.amount_refunded::text`, `p.amount_refunded::text`},
	{"payment_method", `v.payment_method`, `p.payment_method`},
	{"payment_method_ciphertext", `(v.payment_method_ciphertext IS NULL)::text`, `(p.payment_method_ciphertext IS NULL)::text`},
	{"capture_method", `v.capture_method`, `p.capture_method`},
	{"customer_reference", `v.customer_reference`, `o.customer_reference::text`},
	{"customer_email_ciphertext", `(v.customer_email_ciphertext IS NULL)::text`, `(o.customer_email_ciphertext IS NULL)::text`},
	{"order_reference", `v.order_reference`, `o.reference::text`},
	{"lines", `v.lines::text`, `(
		SELECT jsonb_agg(jsonb_build_object('sku', l.sku, 'quantity', l.quantity, 'unit_amount', l.unit_amount) ORDER BY l.line)::text
		FROM order_lines l WHERE l.merchant_id = o.merchant_id AND l.order_id = o.id)`},
	{"failure", `coalesce(v.failure::text, '')`, `CASE WHEN p.failure_code IS NULL THEN ''
		ELSE jsonb_build_object('code', p.failure_code, 'step', p.failure_step, 'message', p.failure_message)::text END`},
	{"failure_code", `coalesce(v.failure_code, '')`, `coalesce(p.failure_code, '')`},
	{"dispute", `jsonb_strip_nulls(v.dispute)::text`, `(
		SELECT jsonb_strip_nulls(jsonb_build_object('id', d.id, 'status', d.status, 'amount', d.amount, 'currency', d.currency, 'reason', d.reason,
			'respond_by', to_char(d.respond_by AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
			'opened_at', to_char(d.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')))::text
		FROM disputes d WHERE d.merchant_id = p.merchant_id AND d.payment_id = p.id ORDER BY d.updated_at DESC, d.id DESC LIMIT 1)`},
	{"created_at", instant(`v.created_at`), instant(`o.created_at`)},
	{"updated_at", instant(`v.updated_at`), instant(`CASE o.sequence WHEN 1 THEN o.created_at ELSE o.updated_at END`)},
	{"refunds", `(
		SELECT coalesce(string_agg(concat_ws(' ', refund_id, amount, status, coalesce(failure_code, '-'), ` + instant(`created_at`) + `, ` + instant(`updated_at`) + `,
			coalesce(reason, '')), ', ' ORDER BY refund_id COLLATE "C"), '')
		FROM refund_view WHERE merchant_id = v.merchant_id AND payment_id = v.payment_id)`, `(
		SELECT coalesce(string_agg(concat_ws(' ', id, amount, status, coalesce(failure_code, '-'), ` + instant(`created_at`) + `, ` + instant(`updated_at`) + `,
			coalesce(reason, '')), ', ' ORDER BY id COLLATE "C"), '')
		FROM refunds WHERE merchant_id = p.merchant_id AND payment_id = p.id)`},
}

// instant is a time in microseconds, in whichever time zone the session is.
func instant(at string) string { return `(extract(epoch FROM ` + at + `) * 1000000)::bigint::text` }

// A line of the timeline begins with its sequence. Its data is the event's, less what no
// line keeps (readmodel.lineData).
const (
	linesRead = `(
		SELECT coalesce(array_agg(concat_ws(' ', t.sequence, t.event_id, t.type, ` + `(extract(epoch FROM t.occurred_at) * 1000000)::bigint` + `, md5(t.data::text)) ORDER BY t.sequence), '{}')
		FROM payment_timeline t WHERE t.merchant_id = v.merchant_id AND t.payment_id = v.payment_id)`
	linesWritten = `(
		SELECT coalesce(array_agg(concat_ws(' ', e.sequence, e.id, outbox_header(e.headers, 'ce_type'),
			(extract(epoch FROM outbox_header(e.headers, 'ce_time')::timestamptz) * 1000000)::bigint,
			md5((convert_from(e.payload, 'UTF8')::jsonb #- '{placed,customer,email_ciphertext}' #- '{placed,payment_method}'
				#- '{placed,payment_method_ciphertext}')::text)) ORDER BY e.sequence), '{}')
		FROM outbox e WHERE e.key = o.id AND e.topic = '` + eventTopic + `')`
)
