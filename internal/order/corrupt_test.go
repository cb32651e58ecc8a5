package order_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/inbox"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/readmodel"
)

// projected applies what the outbox has to the read model, in the order of each key.
func (w *world) projected() {
	w.t.Helper()
	rows, err := w.pool.Query(w.t.Context(), `SELECT key, headers, payload FROM outbox ORDER BY position`)
	if err != nil {
		w.t.Fatal(err)
	}
	var batch []inbox.Message
	var key string
	var headers []string
	var payload []byte
	if _, err := pgx.ForEachRow(rows, []any{&key, &headers, &payload}, func() error {
		m := inbox.Message{Topic: payment.Topic, Offset: int64(len(batch)), Key: []byte(key), Value: slices.Clone(payload), Headers: map[string]string{}}
		for i := 0; i < len(headers); i += 2 {
			m.Headers[headers[i]] = headers[i+1]
		}
		batch = append(batch, m)
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	if err := postgres.InTx(w.t.Context(), w.pool, func(tx pgx.Tx) error { return readmodel.NewProjector().Project(w.t.Context(), tx, batch) }); err != nil {
		w.t.Fatal(err)
	}
}

// violations are those of an audit of a system where nothing is under way.
func (w *world) violations() (all []string) {
	w.t.Helper()
	a := w.audit(w.bank)
	a.Settled = true
	findings, err := a.Run(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range findings {
		for _, v := range f.Violations {
			all = append(all, fmt.Sprintf("%d %s: %s", f.Invariant, f.Name, v))
		}
	}
	return all
}

// corruption of one column or relation.
type corruption struct {
	table, set, where string // no set: the row is deleted
	want              string // one violation has it
}

const (
	won     = `payment_id = (SELECT id FROM payments WHERE amount_refunded > 0)`
	lost    = `payment_id = (SELECT id FROM payments WHERE status = 'failed')`
	ofWon   = `order_id = (SELECT order_id FROM payments WHERE amount_refunded > 0)`
	wonHere = `id = (SELECT id FROM payments WHERE amount_refunded > 0)`
)

var corruptions = []corruption{
	{"payment_view", `merchant_id = 'mer_00000000000000000000000000'`, won, "is in the read model only"},
	{"payment_view", `payment_id = 'pay_00000000000000000000000000'`, won, "is in the read model only"},
	{"payment_view", `order_id = 'ord_00000000000000000000000000'`, won, "order_id"},
	{"payment_view", `sequence = sequence + 1`, won, "in the read model"},
	{"payment_view", `sequence = sequence - 1`, won, "in the read model"},
	{"payment_view", `status = 'failed'`, won, "status"},
	{"payment_view", `currency = 'USD'`, won, "currency"},
	{"payment_view", `amount = amount + 1`, won, "amount"},
	{"payment_view", `amount_captured = 0`, won, "amount_captured"},
	{"payment_view", `amount_refunded = 0`, won, "amount_refunded"},
	{"payment_view", `payment_method = 'pm_fp_forged'`, won, "payment_method"},
	{"payment_view", `payment_method_ciphertext = NULL`, won, "payment_method_ciphertext"},
	{"payment_view", `capture_method = 'manual'`, won, "capture_method"},
	{"payment_view", `customer_reference = 'somebody else'`, won, "customer_reference"},
	{"payment_view", `customer_email_ciphertext = NULL`, won, "customer_email_ciphertext"},
	{"payment_view", `order_reference = 'another'`, won, "order_reference"},
	{"payment_view", `lines = jsonb_set(lines, '{0,quantity}', '9')`, won, "lines"},
	{"payment_view", `lines = jsonb_set(lines, '{0,sku}', '"MUG"')`, won, "lines"},
	{"payment_view", `failure = jsonb_set(failure, '{message}', '"no reason"')`, lost, "failure"},
	{"payment_view", `failure_code = 'x'`, lost, "failure_code"},
	{"payment_view", `dispute = '{"id": "dis_forged"}'`, won, "dispute"},
	{"payment_view", `created_at = created_at + interval '1 microsecond'`, won, "created_at"},
	{"payment_view", `updated_at = updated_at + interval '1 microsecond'`, won, "updated_at"},
	{"payment_view", ``, won, "is not in the read model"},
	{"refund_view", `merchant_id = 'mer_00000000000000000000000000'`, won, "refunds"},
	{"refund_view", `payment_id = 'pay_00000000000000000000000000'`, won, "refunds"},
	{"refund_view", `refund_id = 'ref_00000000000000000000000000'`, won, "refunds"},
	{"refund_view", `amount = amount + 1`, won, "refunds"},
	{"refund_view", `reason = 'forged'`, won, "refunds"},
	{"refund_view", `status = 'failed'`, won, "refunds"},
	{"refund_view", `failure_code = 'x'`, won, "refunds"},
	{"refund_view", `created_at = created_at - interval '1 day'`, won, "refunds"},
	{"refund_view", `updated_at = updated_at - interval '1 day'`, won, "refunds"},
	{"refund_view", ``, won, "refunds"},
	{"payment_timeline", `merchant_id = 'mer_00000000000000000000000000'`, won + ` AND sequence = 2`, "timeline"},
	{"payment_timeline", `payment_id = 'pay_00000000000000000000000000'`, won + ` AND sequence = 2`, "timeline"},
	{"payment_timeline", `sequence = 99`, won + ` AND sequence = 2`, "timeline: there is no event 99"},
	{"payment_timeline", `event_id = 'evt_forged'`, won + ` AND sequence = 2`, "timeline"},
	{"payment_timeline", `type = 'payment.declined'`, won + ` AND sequence = 2`, "timeline"},
	{"payment_timeline", `data = jsonb_set(data, '{status}', '"failed"')`, won + ` AND sequence = 2`, "timeline"},
	{"payment_timeline", `occurred_at = occurred_at + interval '1 second'`, won + ` AND sequence = 2`, "timeline"},
	{"payment_timeline", ``, won + ` AND sequence = 2`, "timeline: event 2 is missing"},

	{"orders", `reference = 'another'`, ofWonOrders, "order_reference"},
	{"orders", `customer_reference = 'another'`, ofWonOrders, "customer_reference"},
	{"orders", `sequence = sequence + 1`, ofWonOrders, "events are 1, 2, 3"},
	{"orders", `status = 'failed'`, ofWonOrders, "9 no saga is stranded"},
	{"orders", `created_at = created_at - interval '1 day'`, ofWonOrders, "created_at"},
	{"order_lines", `quantity = quantity + 1`, ofWon, "must equal the sum of the lines"},
	{"order_lines", `sku = 'MUG'`, ofWon, "lines"},
	{"order_lines", ``, ofWon, "misses its payment, its saga or its lines"},
	{"payments", `amount_captured = 0, amount_refunded = 0, status = 'processing'`, wonHere, "the refunds of a payment add up"},
	{"payments", `amount_refunded = amount_refunded + 1`, wonHere, "the refunds of a payment add up"},
	{"payments", `authorization_reference = 'auth_forged'`, wonHere, "names an authorization that the provider does not"},
	{"payments", `capture_reference = 'cap_forged'`, wonHere, "names a capture that the provider does not have"},
	{"payments", `payment_method = 'pm_fp_forged'`, wonHere, "payment_method"},
	{"payments", `currency = 'USD'`, wonHere, "has another currency at the provider"},
	{"payments", `status = 'failed', failure_code = 'x', failure_step = 'x', failure_message = 'x'`, wonHere, "is failed; the provider took"},
	{"refunds", `amount = amount + 1`, won, "the refunds of a payment add up"},
	{"refunds", `status = 'failed', failure_code = 'x'`, won, "the refunds of a payment add up"},
	{"refunds", ``, won, "the refunds of a payment add up"},
	{"stock", `sold = sold + 1, received = received + 1`, `sku = 'TSHIRT-M'`, "stock is conserved"},
	{"stock_reservations", `state = 'reserved'`, ofWon, "a reservation has a live or won order"},
	{"stock_reservations", `quantity = quantity + 1`, ofWon, "stock is conserved"},
	{"outbox", ``, `key = (SELECT order_id FROM payments WHERE amount_refunded > 0) AND sequence = 3`, "events are 1, 2, 3"},
	{"outbox", `payload = convert_to('{"status": "failed"}', 'UTF8')`, `key = (SELECT order_id FROM payments WHERE amount_refunded > 0) AND sequence = 3`, "timeline"},
	{"idempotency_keys", ``, `resource_id = (SELECT id FROM payments WHERE amount_refunded > 0)`, "has no key"},
	{"idempotency_keys", `resource_id = 'pay_00000000000000000000000000'`, `resource_id = (SELECT id FROM payments WHERE amount_refunded > 0)`, "which does not exist"},
	{"sagas", `due_at = now() - interval '1 hour', state = 'running'`, `subject = (SELECT order_id FROM payments WHERE amount_refunded > 0)`, "no saga is stranded"},
}

const ofWonOrders = `id = (SELECT order_id FROM payments WHERE amount_refunded > 0)`

// unread columns of the read model are no merchant's to see, or the audit finds their row.
var unread = map[string]bool{"payment_timeline.fed": true}

func TestTheAuditFindsEachPlantedCorruption(t *testing.T) {
	w := newWorld(t)
	owner, err := postgres.Open(t.Context(), w.owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(owner.Close)
	refunded := w.placed("pm_card_visa", "")
	w.placed("pm_card_declined", "")
	canceled, open := w.placed("pm_card_visa", payment.CaptureManual), w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	amount := int64(100)
	if _, err := w.refund(t.Context(), refunded, &amount); err != nil {
		t.Fatal(err)
	}
	if _, err := w.orders.Cancel(t.Context(), w.merchant, canceled); err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.projected()
	run := func(sql string, args ...any) int64 {
		t.Helper()
		tag, err := owner.Exec(t.Context(), sql, args...)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return tag.RowsAffected()
	}
	run(`INSERT INTO outbox_checkpoints (shard, epoch, done) SELECT shard, 1, pg_current_snapshot() FROM outbox_shards`)
	if found := w.violations(); len(found) > 0 {
		t.Fatalf("of a system that is right: %q", found)
	}
	for _, table := range []string{"orders", "order_lines", "payments", "refunds"} {
		run(`ALTER TABLE ` + table + ` DISABLE TRIGGER USER`)
	}
	run(`ALTER TABLE sagas DROP CONSTRAINT sagas_not_stranded`)
	run(`ALTER TABLE refunds DROP CONSTRAINT refunds_failure`)
	covered := map[string]bool{}
	for _, c := range corruptions {
		for column := range strings.SplitSeq(c.set, ", ") {
			name, _, _ := strings.Cut(column, " =")
			covered[c.table+"."+name] = true
		}
		undo := corrupt(t, owner, c)
		found := w.violations()
		if !slices.ContainsFunc(found, func(v string) bool { return strings.Contains(v, c.want) }) {
			t.Errorf("%s with %q: %q, want %q", c.table, c.set, found, c.want)
		}
		undo()
	}
	if found := w.violations(); len(found) > 0 {
		t.Errorf("after everything was undone: %q", found)
	}
	rows, err := owner.Query(t.Context(), `
		SELECT table_name || '.' || column_name FROM information_schema.columns
		WHERE table_schema = 'public' AND table_name IN ('payment_view', 'refund_view', 'payment_timeline')`)
	if err != nil {
		t.Fatal(err)
	}
	columns, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range columns {
		if !covered[name] && !unread[name] {
			t.Errorf("no corruption of %s is planted: add it, and the column to audit.columns", name)
		}
	}
	t.Logf("%d corruptions", len(corruptions))
	// At the bank, beside the books.
	w.outside("second", "/v1/authorizations", map[string]any{"reference": open, "amount": 4998, "currency": "EUR", "payment_method": "pm_card_visa"})
	if found := strings.Join(w.violations(), "\n"); !strings.Contains(found, open+" has 2 authorizations") {
		t.Error(found)
	}
	w.outside("nobody's", "/v1/authorizations", map[string]any{"reference": "pay_00000000000000000000000000", "amount": 4998, "currency": "EUR", "payment_method": "pm_card_visa"})
	if found := strings.Join(w.violations(), "\n"); !strings.Contains(found, "pay_00000000000000000000000000 is at the provider only") {
		t.Error(found)
	}
}

// outside asks the bank for what the service did not ask for.
func (w *world) outside(key, path string, body map[string]any) {
	w.t.Helper()
	document, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	w.requestWith(key, http.MethodPost, path, string(document), http.StatusCreated)
}

// corrupt changes or deletes one row, and undo brings it back as it was.
func corrupt(t *testing.T, owner *pgxpool.Pool, c corruption) (undo func()) {
	t.Helper()
	var place, before string
	if err := owner.QueryRow(t.Context(), `SELECT tableoid::regclass || ' ' || ctid, to_jsonb(t) FROM `+c.table+` t WHERE `+c.where+` ORDER BY ctid LIMIT 1`).Scan(&place, &before); err != nil {
		t.Fatalf("%s where %s: %v", c.table, c.where, err)
	}
	table, ctid, _ := strings.Cut(place, " ")
	exec := func(sql string, args ...any) (now string) {
		t.Helper()
		if err := owner.QueryRow(t.Context(), sql, args...).Scan(&now); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return now
	}
	if c.set == "" {
		exec(`DELETE FROM `+table+` WHERE ctid = $1::text::tid RETURNING ctid::text`, ctid)
		return func() {
			exec(`INSERT INTO `+c.table+` OVERRIDING SYSTEM VALUE SELECT * FROM jsonb_populate_record(NULL::`+c.table+`, $1) RETURNING 'done'`, before)
		}
	}
	ctid = exec(`UPDATE `+table+` SET `+c.set+` WHERE ctid = $1::text::tid RETURNING ctid::text`, ctid)
	var names []string
	for column := range strings.SplitSeq(c.set, ", ") {
		if name, _, ok := strings.Cut(column, " = "); ok && !strings.ContainsAny(name, "'(\"") {
			names = append(names, name)
		}
	}
	list := strings.Join(names, ", ")
	return func() {
		exec(`UPDATE `+table+` SET (`+list+`) = (SELECT `+list+` FROM jsonb_populate_record(NULL::`+c.table+`, $2)) WHERE ctid = $1::text::tid RETURNING 'done'`, ctid, before)
	}
}
