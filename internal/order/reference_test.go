package order_test

import (
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"golang.org/x/text/unicode/norm"

	"payments/internal/devstack/devtest"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/migrations"
)

func refusedAs(err error, code payment.Code) bool {
	refused, ok := errors.AsType[*payment.Error](err)
	return ok && refused.Code == code
}

func TestAnOrderIsPaidOnceHoweverItsReferenceIsSpelled(t *testing.T) {
	w := newWorld(t)
	const reference = "Größe 38 é"
	spellings := []string{
		reference, norm.NFD.String(reference), " " + reference, reference + "\u00a0", "\u2007" + reference, "\u202f" + reference + "\u3000", norm.NFD.String(reference) + "\u2003",
	}
	taken := make(chan error, len(spellings))
	var all sync.WaitGroup
	for _, s := range spellings {
		all.Go(func() {
			_, err := w.place(draft{"pm_card_visa", s, 1, payment.CaptureAutomatic, nil})
			taken <- err
		})
	}
	all.Wait()
	close(taken)
	placed := 0
	for err := range taken {
		if err == nil {
			placed++
		} else if !refusedAs(err, payment.CodeOrderInProgress) {
			t.Error(err)
		}
	}
	if placed != 1 {
		t.Errorf("%d of %d spellings were placed", placed, len(spellings))
	}
	w.settle()
	for _, s := range spellings {
		if _, err := w.place(draft{"pm_card_visa", s, 1, payment.CaptureAutomatic, nil}); !refusedAs(err, payment.CodeOrderAlreadyPaid) {
			t.Errorf("%+q: %v", s, err)
		}
	}
	for _, other := range []string{"größe 38 é", "Größe  38 é", "Größe\u00a038 é", "Größe ３８ é"} {
		if _, err := w.place(draft{"pm_card_visa", other, 1, payment.CaptureAutomatic, nil}); err != nil {
			t.Errorf("%+q: %v", other, err)
		}
	}
	if got := one[string](w, `SELECT reference FROM orders ORDER BY created_at LIMIT 1`); got != reference {
		t.Errorf("%+q is kept", got)
	}
	w.settle()
	w.audited()
}

// The database has the domain's rule again, for each character that both versions of Unicode
// know, but for the large blocks of like ones.
func TestTheDatabaseKnowsABusinessKey(t *testing.T) {
	w := newWorld(t)
	rows, err := w.pool.Query(t.Context(), `
		SELECT n, is_business_key('a' || chr(n) || 'b', 64), is_business_key(chr(n) || 'b', 64), reference_key(chr(n) || 'b')
		FROM generate_series(1, 1114111) AS n
		WHERE n NOT BETWEEN 13312 AND 42124 AND n NOT BETWEEN 44032 AND 63743 -- ideographs, Hangul, surrogates, private use
			AND n NOT BETWEEN 131072 AND 917503 AND n < 983040`)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var inside, first bool
	var key string
	checked := 0
	_, err = pgx.ForEachRow(rows, []any{&n, &inside, &first, &key}, func() error {
		r := rune(n)
		if !unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z, unicode.Cc, unicode.Cf, unicode.Co) {
			return nil // unassigned
		}
		checked++
		for s, got := range map[string]bool{"a" + string(r) + "b": inside, string(r) + "b": first} {
			want, err := payment.BusinessKey(s, 64)
			if (err == nil && want == s) != got {
				t.Errorf("%+q is a key: %t in the database; %+q, %v in the domain", s, got, want, err)
			}
		}
		if want, err := payment.BusinessKey(string(r)+"b", 64); err == nil && want != key {
			t.Errorf("%U: the database's key is %+q, the domain's %+q", r, key, want)
		}
		return nil
	})
	if err != nil || checked < 30_000 {
		t.Error(checked, err)
	}
}

// Orders from before there were business keys.
func TestReferencesFromBeforeStayAndAreTaken(t *testing.T) {
	w, versions := newWorld(t), downTo(t, 23)
	made := func(id, merchant, reference, status string) {
		t.Helper()
		tx, err := versions.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tx.ExecContext(t.Context(), `
			INSERT INTO orders (merchant_id, id, reference, customer_reference, currency, amount, status, sequence, created_at)
			VALUES ($1, $2, $3, 'c' || chr(8203), 'EUR', 1, $4, 1, now())`, merchant, id, reference, status)
		if err == nil {
			_, err = tx.ExecContext(t.Context(), `
				INSERT INTO order_lines (merchant_id, order_id, line, sku, quantity, unit_amount) VALUES ($1, $2, 0, 'A', 1, 1)`, merchant, id)
		}
		if err = errors.Join(err, tx.Commit()); err != nil {
			t.Fatal(err)
		}
	}
	a, b := w.ids.New(payment.PrefixMerchant), w.ids.New(payment.PrefixMerchant)
	for _, m := range []string{a, b} {
		if _, err := versions.db.ExecContext(t.Context(), `INSERT INTO merchants (id, name) VALUES ($1, 'm')`, m); err != nil {
			t.Fatal(err)
		}
	}
	id := func() string { return w.ids.New(payment.PrefixOrder) }
	paid, again, live, invisible, alone, failed := id(), id(), id(), id(), id(), id()
	made(paid, a, "caf\u00e9", "confirmed")
	made(again, a, "cafe\u0301", "confirmed")
	made(invisible, a, "A-1\u200b", "confirmed")
	made(failed, a, "A-1", "failed")
	made(alone, b, "caf\u00e9 ", "confirmed") // of another merchant
	made(live, a, "\u00a0caf\u00e9", "placed")
	if _, err := versions.Up(t.Context()); err == nil || !strings.Contains(err.Error(), live) || strings.Contains(err.Error(), alone) {
		t.Fatalf("an order in progress whose reference is paid in another form: %v", err)
	}
	if _, err := versions.db.ExecContext(t.Context(), `UPDATE orders SET status = 'canceled' WHERE id = $1`, live); err != nil {
		t.Fatal(err)
	}
	if _, err := versions.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	var marked string
	if err := versions.db.QueryRowContext(t.Context(), `SELECT string_agg(id, ' ') FROM orders WHERE reference_repeated`).Scan(&marked); err != nil || marked != again {
		t.Errorf("marked are %q, %v; want %s", marked, err, again)
	}
	// They still change.
	if _, err := versions.db.ExecContext(t.Context(), `UPDATE orders SET sequence = sequence + 1, updated_at = now()`); err != nil {
		t.Error(err)
	}
	// And their references are taken in each form.
	pool, err := postgres.Open(t.Context(), versions.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w.pool, w.config.Pool, w.merchant = pool, pool, a
	w.orders = order.New(w.config)
	for _, s := range []string{"caf\u00e9", "cafe\u0301", " caf\u00e9", "A-1"} {
		if _, err := w.place(draft{"pm_card_visa", s, 1, payment.CaptureAutomatic, nil}); !refusedAs(err, payment.CodeOrderAlreadyPaid) {
			t.Errorf("%+q: %v", s, err)
		}
	}
	w.merchant = b
	if _, err := w.place(draft{"pm_card_visa", "A-1", 1, payment.CaptureAutomatic, nil}); err != nil {
		t.Error(err)
	}
	if got := one[string](w, `SELECT reference FROM orders WHERE id = $1`, again); got != "cafe\u0301" {
		t.Errorf("%+q is what became of it", got)
	}
	// Once more, after it was interrupted.
	if _, err := versions.DownTo(t.Context(), 23); err != nil {
		t.Fatal(err)
	}
	if _, err := versions.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.count(`SELECT count(*) FROM orders WHERE reference_repeated`); n != 1 {
		t.Errorf("%d are marked after down and up", n)
	}
}

type schema struct {
	*goose.Provider
	db  *sql.DB
	url string
}

// downTo is a database as it was at that version: 23 had no business keys yet.
func downTo(t *testing.T, version int64) schema {
	t.Helper()
	url := devtest.Database(t).OwnerURL
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["payments.merchant"] = "*"
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { _ = db.Close() })
	p, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.DownTo(t.Context(), version); err != nil {
		t.Fatal(err)
	}
	return schema{p, db, url}
}
