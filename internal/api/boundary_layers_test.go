package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"payments/internal/access"
	"payments/internal/idempotency"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/postgres"
)

// boundaryWorld gives the layers what a value has to be beside.
type boundaryWorld struct {
	*world
	prompt        *pgxpool.Pool // of the owner, who may write every column
	n             int
	saga, blocked string
}

func newBoundaryWorld(t *testing.T) *boundaryWorld {
	t.Helper()
	w := &boundaryWorld{world: newWorld(t)}
	var err error
	if w.prompt, err = postgres.Open(t.Context(), w.owner); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.prompt.Close)
	return w
}

func (w *boundaryWorld) fresh() string {
	w.n++
	return fmt.Sprint("k-", w.n)
}

func (w *boundaryWorld) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.pool.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatal(err)
	}
}

// parkedSaga waits for a person at a step whose outcome two of them can tell.
func (w *boundaryWorld) parkedSaga() string {
	w.t.Helper()
	if w.saga == "" {
		id := w.placed("parked", "")
		if err := w.pool.QueryRow(w.t.Context(), `
			UPDATE sagas SET state = 'parked', parked = '{}', parked_from = 'running', step = 'authorize_payment', due_at = NULL
			WHERE subject = (SELECT order_id FROM payments WHERE id = $1) RETURNING id`, id).Scan(&w.saga); err != nil {
			w.t.Fatal(err)
		}
	}
	return w.saga
}

// blockOne gives a blocked key, the same until it was discarded.
func (w *boundaryWorld) blockOne() (id string, err error) {
	w.t.Helper()
	var waits bool
	if err := w.pool.QueryRow(w.t.Context(), `SELECT EXISTS (SELECT FROM inbox_parked_keys WHERE id = $1)`, w.blocked).Scan(&waits); err != nil {
		return "", err
	}
	if !waits {
		w.blocked = w.block(w.ids.New(payment.PrefixOrder), "{}")
	}
	return w.blocked, nil
}

func (w *boundaryWorld) act(act, reason string, v order.Verdict) error {
	return w.orders.Operations().Act(w.t.Context(), order.By{Operator: "key", Holder: "ada", Reason: reason}, w.parkedSaga(), act, v)
}

func (w *boundaryWorld) newKey(spec access.KeySpec) error {
	spec.APIVersion = cmp.Or(spec.APIVersion, NewestVersion())
	_, err := w.api.Keys.Create(w.t.Context(), access.By{Source: access.SourceCommandLine, Origin: "the test"}, idempotency.Request{MerchantID: "of the test", Key: w.fresh()}, spec,
		func(k access.APIKey) (idempotency.Response, error) {
			return idempotency.Response{ResourceID: k.ID, Status: 201}, nil
		})
	return err
}

// at follows a pointer into a document of maps and slices.
func at(document any, pointer string) any {
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		switch in := document.(type) {
		case map[string]any:
			document = in[token]
		case []any:
			i, _ := strconv.Atoi(token)
			document = in[i]
		}
	}
	return document
}

func put(document map[string]any, pointer string, v any) {
	parent, name := pointer[:strings.LastIndexByte(pointer, '/')], pointer[strings.LastIndexByte(pointer, '/')+1:]
	if parent == "" {
		document[name] = v
		return
	}
	at(document, parent).(map[string]any)[name] = v
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // no value of a test can make it fail
	}
	return string(b)
}

// inHeader: the member is no part of the body.
func (m member) inHeader() bool { return !strings.HasPrefix(m.pointer, "/") }

func (m member) request(w *boundaryWorld, v any) map[string]any {
	body := m.of.body(w)
	switch {
	case m.inHeader():
	case m.with != nil:
		m.with(body, v)
	default:
		put(body, m.pointer, v)
	}
	return body
}

// byDocument holds the request against openapi.yaml.
func (m member) byDocument(w *boundaryWorld, v any) error {
	if m.inHeader() {
		return document(w.t).Validate("/components/parameters/IdempotencyKey/schema", v)
	}
	parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(encode(m.request(w, v))))
	if err != nil {
		return err
	}
	return document(w.t).Validate(m.of.schema, parsed)
}

// byHTTP is nil for a request that is done, and an error for one that is refused
// because of the member; anything else fails the test.
func (m member) byHTTP(w *boundaryWorld, v any) error {
	w.t.Helper()
	headers := key(w.fresh())
	if m.inHeader() {
		headers = []string{m.pointer, v.(string)}
		w.exec(`DELETE FROM idempotency_keys`)
	}
	a := w.do(m.of.method, m.of.path(w), m.of.key(w), encode(m.request(w, v)), headers...)
	if a.status == m.of.status {
		return nil
	}
	if m.inHeader() && a.status == 400 && strings.HasPrefix(a.at(w.t, "code").(string), "idempotency_key_") {
		return errors.New(a.body)
	}
	for _, refusal := range w.refused(m.pointer, a, 400, payment.CodeInvalid) {
		if at, _, _ := strings.Cut(refusal, " "); at == m.pointer || strings.HasPrefix(at, m.pointer+"/") {
			return errors.New(a.body)
		}
	}
	w.t.Errorf("%s %.60q: %d %s", m.pointer, fmt.Sprint(v), a.status, a.body)
	return errors.New(a.body)
}

// bySQL inserts a row with the value, and updates one to it, as a person at a prompt
// would; the error of either is that of both.
func (m member) bySQL(w *boundaryWorld, column string, v any) error {
	w.t.Helper()
	if m.column != nil {
		v = m.column(v)
	}
	given := map[string]any{column: v}
	maps.Copy(given, m.beside)
	inserted := w.written(given, nil)
	table, name, _ := strings.Cut(column, ".")
	if table == "inbox_discarded" || table == "order_lines" { // which nobody updates
		return inserted
	}
	updated := w.written(m.beside, func(tx pgx.Tx, ctid map[string]string) error {
		if name == "on_hand" {
			name = "received = $1, on_hand" // which is conserved
		}
		_, err := tx.Exec(w.t.Context(), `UPDATE `+table+` SET `+name+` = $1 WHERE ctid = $2::tid`, v, ctid[table])
		return err
	})
	if postgres.Constraint(inserted) != postgres.Constraint(updated) || (inserted == nil) != (updated == nil) {
		w.t.Errorf("%s %.60q: an INSERT says %v, an UPDATE %v", column, fmt.Sprint(v), inserted, updated)
	}
	return inserted
}

// unruled are members that have no rule of their own, by what the body is.
var unruled = map[string][]string{
	"/components/schemas/ParkedDiscardRequest":     {"/all", "/offset"}, // which message, or all
	"/components/schemas/PaymentRequest":           {"/order/lines/0/unit_amount"},
	"/components/schemas/ProviderChangeAcceptance": {"/reason"},                                                                                   // the rule of SagaActRequest: TestOperatorsSeeAndAcceptProviderChanges
	"/components/schemas/StockRequest":             {"/data/0/merchant", "/data/0/on_hand", "/data/0/sku", "/0/merchant", "/0/on_hand", "/0/sku"}, // as of one item
}

// Every member of every body stands in the table.
func TestTheTableHasEveryMember(t *testing.T) {
	have := map[string]bool{}
	for _, m := range members() {
		have[m.of.schema+" "+m.pointer] = true
	}
	for schema, pointers := range unruled {
		for _, p := range pointers {
			have[schema+" "+p] = true
		}
	}
	for _, o := range document(t).Operations() {
		schema, pointers, err := document(t).Members(o)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(o.Path, "/v1/provider/") { // whose form is the provider's
			continue
		}
		for _, p := range pointers {
			if !have[schema+" "+p] {
				t.Errorf("%s %s: no boundaries of %s (%s)", o.Method, o.Path, p, schema)
			}
		}
	}
}

// One table, one verdict: of the document, the domain, the API and the database.
func TestBoundariesAgree(t *testing.T) {
	w := newBoundaryWorld(t)
	for _, m := range members() {
		for _, b := range slices.Concat(m.values...) {
			name := fmt.Sprintf("%s %s %.60q", m.of.schema[strings.LastIndexByte(m.of.schema, '/'):], m.pointer, fmt.Sprint(b.value))
			if err := m.byDocument(w, b.value); (err == nil) != (b.valid || b.unsaid&inDocument != 0) {
				t.Errorf("%s: the document says %v", name, err)
			}
			if m.domain != nil {
				if err := m.domain(w, b.value); (err == nil) != b.valid {
					t.Errorf("%s: the domain says %v", name, err)
				}
			}
			if err := m.byHTTP(w, b.value); (err == nil) != b.valid {
				t.Errorf("%s: the API says %v", name, err)
			}
			for _, column := range m.kept {
				err := m.bySQL(w, column, b.value)
				by := postgres.Constraint(err)
				if (err == nil) != (b.valid || b.unsaid&inDatabase != 0) || err != nil && !postgres.DataError(err) || err != nil && by != "" != (b.refusedBy != "") ||
					by != "" && !slices.Contains(strings.Fields(b.refusedBy), by) {
					t.Errorf("%s: the database says of %s: %v", name, column, err)
				}
			}
		}
	}
}
