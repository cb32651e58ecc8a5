package rekey

import (
	"crypto/rand"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/access"
	"payments/internal/devstack/devtest"
	"payments/internal/idempotency"
	"payments/internal/inbox"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
	"payments/internal/readmodel"
	"payments/internal/secret"
	"payments/internal/webhook"
)

func TestMain(m *testing.M) { devtest.Main(m, devtest.WithMigrations(postgres.Migrate)) }

// world is one installation's database and the keysets over a rotation.
type world struct {
	t              *testing.T
	service, owner *pgxpool.Pool
	merchant       string
	pepper, cipher string // keysets
	placed         int
}

const (
	token = "pm_card_1Nabcd"
	email = "ada@example.com"
	hook  = "https://hooks.example.com/payments/t0k3n?key=t0k3n"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	urls := devtest.Database(t)
	open := func(url string) *pgxpool.Pool {
		pool, err := postgres.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		return pool
	}
	w := &world{t: t, service: open(urls.URL), owner: open(urls.OwnerURL), merchant: ids().New(payment.PrefixMerchant)}
	w.pepper, w.cipher = w.must(secret.NewPepperKeyset()), w.must(secret.NewCipherKeyset())
	w.exec(`INSERT INTO merchants (id, name) VALUES ($1, 'Shop')`, w.merchant)
	return w
}

func ids() payment.Generator { return payment.Generator{Now: time.Now, Random: rand.Reader} }

func (w *world) must(s string, err error) string {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.owner.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) keys() (*secret.Pepper, *secret.Cipher) {
	w.t.Helper()
	p, err := secret.ParseMAC(w.pepper)
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := secret.ParseAEAD(w.cipher)
	if err != nil {
		w.t.Fatal(err)
	}
	return p, c
}

// both takes both keysets one step on.
func (w *world) both(step func(string) (string, error)) {
	w.t.Helper()
	w.pepper, w.cipher = w.must(step(w.pepper)), w.must(step(w.cipher))
}

// place makes a payment with everything of it that is protected.
func (w *world) place() (paymentID string) {
	w.t.Helper()
	pepper, cipher := w.keys()
	orders := order.New(order.Config{
		Pool: w.service, IDs: ids(), Cipher: cipher, Methods: order.PaymentMethods(pepper, cipher), Provider: (*provider.HTTP)(nil), Deadline: time.Hour,
	})
	w.placed++
	o, err := payment.NewOrder(payment.Draft{
		Amount: 2499, Currency: "EUR", PaymentMethod: token, CustomerReference: "cust-1", CustomerEmail: email, OrderReference: rand.Text(),
		Lines: []payment.DraftLine{{SKU: "TSHIRT-M", Quantity: 1, UnitAmount: 2499}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	request := idempotency.Request{MerchantID: w.merchant, Key: rand.Text()}
	r, _, err := orders.Place(w.t.Context(), request, o, func(p order.Placed) (idempotency.Response, error) {
		body, err := cipher.Encrypt([]byte("the answer"), idempotency.AnswerData(request, p.PaymentID))
		return idempotency.Response{ResourceID: p.PaymentID, Status: 202, Body: body}, err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return r.ResourceID
}

// project applies every event of the outbox.
func (w *world) project() {
	w.t.Helper()
	rows, err := w.service.Query(w.t.Context(), `SELECT key, payload, headers FROM outbox ORDER BY position`)
	if err != nil {
		w.t.Fatal(err)
	}
	messages, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m inbox.Message, err error) {
		var headers []string
		err = row.Scan(&m.Key, &m.Value, &headers)
		m.Headers = map[string]string{}
		for pair := range slices.Chunk(headers, 2) {
			m.Headers[pair[0]] = pair[1]
		}
		return m, err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := postgres.InTx(w.t.Context(), w.service, func(tx pgx.Tx) error {
		return readmodel.NewProjector().Project(w.t.Context(), tx, messages)
	}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) config(check bool) Config {
	w.t.Helper()
	pepper, cipher := w.keys()
	// Two rows at once, so that a run has several pages.
	return Config{
		Write: w.owner, Read: w.owner, Pepper: pepper, Cipher: cipher, Methods: order.PaymentMethods(pepper, cipher), Batch: 2, Check: check,
		Done: func(string, int64) {},
	}
}

// run gives what it counted, by column, without those that were as they should be.
func (w *world) run(check bool) map[string]Count {
	w.t.Helper()
	counts, err := Run(w.t.Context(), w.config(check))
	if err != nil {
		w.t.Fatal(err)
	}
	some := map[string]Count{}
	for _, n := range counts {
		if n.Renewed+n.Older+n.Unreadable > 0 {
			some[n.Column] = n
		}
	}
	return some
}

func (w *world) expect(what string, got, want map[string]Count) {
	w.t.Helper()
	for column, n := range want {
		n.Column = column
		if got[column] != n {
			w.t.Errorf("%s: %+v, want %+v", what, got[column], n)
		}
	}
	if len(got) != len(want) {
		w.t.Errorf("%s: %+v", what, got)
	}
}

// readable opens every value with the keys as they are.
func (w *world) readable() {
	w.t.Helper()
	pepper, cipher := w.keys()
	methods := order.PaymentMethods(pepper, cipher)
	open := func(what, sql string, data func(string) []byte, want string) {
		rows, err := w.owner.Query(w.t.Context(), sql)
		if err != nil {
			w.t.Fatal(err)
		}
		var bound string
		var sealed []byte
		if _, err := pgx.ForEachRow(rows, []any{&bound, &sealed}, func() error {
			if got, err := cipher.Decrypt(sealed, data(bound)); err != nil || want != "" && string(got) != want {
				w.t.Errorf("%s of %s: %q, %v", what, bound, got, err)
			}
			return nil
		}); err != nil {
			w.t.Fatal(err)
		}
	}
	method := func(id string) []byte { return []byte("payment_method|" + id) }
	open("method", `SELECT id, payment_method_ciphertext FROM payments`, method, token)
	open("method in the view", `SELECT payment_id, payment_method_ciphertext FROM payment_view`, method, token)
	open("method of the saga", `SELECT data->>'payment_id', decode(data->>'payment_method_ciphertext', 'base64') FROM sagas WHERE data ? 'payment_method_ciphertext'`, method, token)
	open("address", `SELECT p.id, customer_email_ciphertext FROM orders o JOIN payments p ON p.order_id = o.id`, order.EmailData, email)
	open("address in the view", `SELECT payment_id, customer_email_ciphertext FROM payment_view`, order.EmailData, email)
	open("answer", `SELECT merchant_id || ' ' || key || ' ' || resource_id, body FROM idempotency_keys WHERE body <> ''`, func(bound string) []byte {
		parts := strings.Split(bound, " ")
		return idempotency.AnswerData(idempotency.Request{MerchantID: parts[0], Key: parts[1]}, parts[2])
	}, "")
	open("webhook secret", `SELECT endpoint_id, ciphertext FROM webhook_secrets`, func(id string) []byte { return webhook.SecretData(id, 1) }, "")
	open("webhook URL", `SELECT id, url_ciphertext FROM webhook_endpoints`, webhook.URLData, hook)
	if got := w.found(methods.Fingerprints(token)); got != w.placed {
		w.t.Errorf("%d of %d are found by the fingerprint", got, w.placed)
	}
}

func (w *world) found(fingerprints []string) (n int) {
	w.t.Helper()
	if err := w.owner.QueryRow(w.t.Context(), `
		SELECT count(*) FROM payments p JOIN payment_view v ON v.payment_id = p.id AND v.payment_method = p.payment_method
			AND v.payment_method_ciphertext = p.payment_method_ciphertext WHERE p.payment_method = ANY ($1)`, fingerprints).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func TestARotationLeavesNothingUnderTheOldKeys(t *testing.T) {
	w := newWorld(t)
	pepper, cipher := w.keys()
	for range 5 {
		w.place()
	}
	w.project()
	if _, _, err := webhook.NewStore(w.service, ids(), cipher, webhook.Guard{}).Create(t.Context(), idempotency.Request{MerchantID: w.merchant, Key: "hook"},
		w.endpoint(), func(k webhook.Keyed) (idempotency.Response, error) {
			return idempotency.Response{ResourceID: k.ID, Status: 201}, nil
		}); err != nil {
		t.Fatal(err)
	}
	_, key, err := access.NewKey(ids(), pepper, access.KeySpec{Mode: access.ModeTest, Role: access.RoleMerchant, MerchantID: w.merchant, APIVersion: "2026-11-01"})
	if err != nil {
		t.Fatal(err)
	}
	if err := postgres.InTx(t.Context(), w.owner, func(tx pgx.Tx) error { return access.InsertKey(t.Context(), tx, key) }); err != nil {
		t.Fatal(err)
	}
	w.expect("before", w.run(true), nil)
	w.both(secret.AddKey)
	w.expect("with an unused key", w.run(true), nil)
	w.both(secret.PromoteKey)
	w.place()
	w.project()
	five := Count{Values: 6, Older: 5}
	one := Count{Values: 1, Older: 1}
	left := map[string]Count{
		"payments.payment_method": five, "orders.customer_email_ciphertext": five, "idempotency_keys.body": five, "sagas.data": five, "payment_view": five,
		"webhook_secrets.ciphertext": one, "webhook_endpoints.url": one, "api_keys.mac": one,
	}
	w.expect("after the promotion", w.run(true), left)
	for column, n := range left {
		n.Renewed, n.Older = n.Older, 0
		left[column] = n
	}
	left["api_keys.mac"] = one // nobody but its user can make it anew
	w.expect("the run", w.run(false), left)
	w.expect("after it", w.run(true), map[string]Count{"api_keys.mac": one})
	w.readable()
	w.exec(`UPDATE api_keys SET revoked_at = now()`)
	w.both(secret.DropOldKeys)
	w.readable()
	w.expect("without the old keys", w.run(true), nil)
}

func (w *world) endpoint() webhook.Draft {
	w.t.Helper()
	d, err := webhook.NewDraft(webhook.Guard{}, hook, []string{"*"})
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// Rows from before payment methods were encrypted.
func TestWhatWasInTheClearIsSealed(t *testing.T) {
	w := newWorld(t)
	live, ended := w.place(), w.place()
	w.project()
	w.exec(`UPDATE payments SET payment_method = $1, payment_method_ciphertext = NULL`, token)
	w.exec(`UPDATE payment_view SET payment_method = $1, payment_method_ciphertext = NULL`, token)
	plain, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	w.exec(`UPDATE sagas SET data = jsonb_set(data - 'payment_method_ciphertext', '{payment_method}', $1::jsonb)`, plain)
	w.exec(`UPDATE sagas SET state = 'completed', due_at = NULL WHERE data->>'payment_id' = $1`, ended)
	w.exec(`UPDATE payment_timeline SET data = jsonb_set(data, '{placed,payment_method}', $1::jsonb)`, plain)
	two := Count{Values: 2, Renewed: 2}
	saga := Count{Values: 2, Renewed: 1, Older: 1} // a process of the older version needs it
	w.expect("the run", w.run(false), map[string]Count{
		"payments.payment_method": two, "payment_view": two, "payment_timeline.data": two, "sagas.data": saga,
	})
	w.readable()
	w.exec(`UPDATE sagas SET state = 'completed', due_at = NULL WHERE data->>'payment_id' = $1`, live)
	saga = Count{Values: 1, Renewed: 1}
	w.expect("the next", w.run(false), map[string]Count{"sagas.data": saga})
	w.expect("after it", w.run(true), nil)
	var left bool
	if err := w.owner.QueryRow(t.Context(), `
		SELECT EXISTS (SELECT FROM payments p WHERE p::text LIKE '%'||$1||'%') OR EXISTS (SELECT FROM sagas s WHERE s::text LIKE '%'||$1||'%')
			OR EXISTS (SELECT FROM payment_view v WHERE v::text LIKE '%'||$1||'%') OR EXISTS (SELECT FROM payment_timeline l WHERE l::text LIKE '%'||$1||'%')`,
		token).Scan(&left); err != nil || left {
		t.Errorf("the token is still there: %v %v", left, err)
	}
}

// A value that changes between its reading and its writing is left as it was changed.
func TestALiveWriterIsNotOverwritten(t *testing.T) {
	for name, change := range map[string]string{
		"payments.payment_method":          `UPDATE payments SET payment_method_ciphertext = 'other'`,
		"orders.customer_email_ciphertext": `UPDATE orders SET customer_email_ciphertext = decode(repeat('00', 40), 'hex')`,
		"idempotency_keys.body":            `UPDATE idempotency_keys SET body = 'other'`,
		"sagas.data":                       `UPDATE sagas SET data = data - 'payment_method_ciphertext'`,
	} {
		w := newWorld(t)
		w.place()
		w.both(secret.AddKey)
		w.both(secret.PromoteKey)
		c := w.config(false)
		all := c.columns()
		col := all[slices.IndexFunc(all, func(c column) bool { return c.name == name })]
		renewed := col.renewed
		col.renewed = func(r row) (row, bool, error) {
			w.exec(change)
			return renewed(r)
		}
		if n, err := c.renew(t.Context(), col); n != (Count{Column: name, Values: 1, Older: 1}) || err != nil {
			t.Errorf("%+v, %v", n, err)
		}
	}
}

// A worker that holds a saga writes back all that it has read.
func TestASagaInAWorkersHandsIsLeft(t *testing.T) {
	w := newWorld(t)
	w.place()
	w.project()
	w.both(secret.AddKey)
	w.both(secret.PromoteKey)
	w.exec(`UPDATE sagas SET owner = 'a worker', due_at = now() + interval '1 minute'`)
	if n := w.run(false)["sagas.data"]; n != (Count{Column: "sagas.data", Values: 1, Older: 1}) {
		t.Errorf("held: %+v", n)
	}
	// It is claimed between its reading and its writing.
	w.exec(`UPDATE sagas SET owner = NULL`)
	c := w.config(false)
	all := c.columns()
	col := all[slices.IndexFunc(all, func(c column) bool { return c.name == "sagas.data" })]
	renewed := col.renewed
	col.renewed = func(r row) (row, bool, error) {
		w.exec(`UPDATE sagas SET owner = 'a worker'`)
		return renewed(r)
	}
	if n, err := c.renew(t.Context(), col); n != (Count{Column: "sagas.data", Values: 1, Older: 1}) || err != nil {
		t.Errorf("claimed: %+v, %v", n, err)
	}
	w.exec(`UPDATE sagas SET owner = NULL`)
	w.expect("given back", w.run(false), map[string]Count{"sagas.data": {Values: 1, Renewed: 1}})
}

// What none of the keys opens is counted, and does not stop the rest.
func TestWhatCannotBeReadIsTold(t *testing.T) {
	w := newWorld(t)
	w.place()
	lost := w.place()
	w.place()
	w.exec(`UPDATE orders SET customer_email_ciphertext = decode(repeat('00', 40), 'hex') WHERE id = (SELECT order_id FROM payments WHERE id = $1)`, lost)
	w.both(secret.AddKey)
	w.both(secret.PromoteKey)
	if n := w.run(false)["orders.customer_email_ciphertext"]; n != (Count{Column: "orders.customer_email_ciphertext", Values: 3, Renewed: 2, Unreadable: 1}) {
		t.Errorf("%+v", n)
	}
}
