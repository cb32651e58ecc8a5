package access

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/payment"
)

// queries counts those of a pool.
type queries struct{ n atomic.Int64 }

func (q *queries) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	if strings.Contains(d.SQL, "api_keys") {
		q.n.Add(1)
	}
	return ctx
}
func (*queries) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func counted(t *testing.T, pool *pgxpool.Pool) (*pgxpool.Pool, *queries) {
	t.Helper()
	q := &queries{}
	config := pool.Config()
	config.ConnConfig.Tracer = q
	traced, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(traced.Close)
	return traced, q
}

var errLimited = errors.New("too many")

// limitAfter lets n lookups through.
func limitAfter(n int) func(string) error {
	return func(string) error {
		if n--; n < 0 {
			return errLimited
		}
		return nil
	}
}

func TestAuthenticateWithin_AWrongKeyCostsNoQueryBeyondTheLimit(t *testing.T) {
	pool, pepper := open(t), newPepper(t)
	text, key := newKey(t, pepper, ModeTest, RoleOperator, "")
	revokedText, revoked := newKey(t, pepper, ModeTest, RoleOperator, "")
	unknownText, _ := newKey(t, pepper, ModeTest, RoleOperator, "")
	insert(t, pool, key, revoked)
	traced, asked := counted(t, pool)
	a := NewAuthenticator(traced, pepper)
	for _, right := range []string{text, revokedText} { // both are remembered
		if _, err := a.AuthenticateWithin(t.Context(), right, here, limitAfter(1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pool.Exec(t.Context(), `UPDATE api_keys SET revoked_at = now() WHERE id = $1`, revoked.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := a.AuthenticateWithin(t.Context(), revokedText, here, limitAfter(0)); err == nil || errors.Is(err, errLimited) {
		t.Errorf("a revoked key is let in or refused unread: %v", err)
	}
	for name, wrong := range map[string]string{
		"missing": "", "malformed": "sk_test_x", "unknown": unknownText, "wrong secret": FormatKey(ModeTest, key.ID, [20]byte{1}), "revoked": revokedText,
	} {
		limit, before, start := limitAfter(3), asked.n.Load(), time.Now()
		for i := range 100 {
			_, err := a.AuthenticateWithin(t.Context(), wrong, here, limit)
			if (i < 3) == errors.Is(err, errLimited) || err == nil {
				t.Fatalf("%s, try %d: %v", name, i, err)
			}
		}
		// Of those beyond the limit, one a second may look whether new keys have come.
		if n := asked.n.Load() - before; n < 3 || n > 3+1+int64(time.Since(start)/learnPause) {
			t.Errorf("%s: %d queries for 100 tries of which 3 are within the limit", name, n)
		}
	}
	before := asked.n.Load()
	for range 5 {
		if _, err := a.AuthenticateWithin(t.Context(), text, here, limitAfter(0)); err != nil {
			t.Fatalf("the holder is refused for what others did: %v", err)
		}
	}
	if n := asked.n.Load() - before; n != 5 {
		t.Errorf("%d queries for 5 requests of the holder: whether a key is live is read each time", n)
	}
}

// Also the first request of a key to a process, and a key that was made after it was tried.
func TestAuthenticateWithin_ARightKeyIsNeverLimited(t *testing.T) {
	pool, pepper := open(t), newPepper(t)
	firstText, first := newKey(t, pepper, ModeTest, RoleOperator, "")
	laterText, later := newKey(t, pepper, ModeTest, RoleOperator, "")
	oldText, old := newKey(t, pepper, ModeTest, RoleOperator, "")
	insert(t, pool, first)
	a := NewAuthenticator(pool, pepper)
	all := func(string) error { return errLimited }
	if _, err := a.AuthenticateWithin(t.Context(), firstText, here, all); err != nil {
		t.Errorf("a key that this process has not seen: %v", err)
	}
	within := limitAfter(2)
	if _, err := a.AuthenticateWithin(t.Context(), laterText, here, within); code(err) != payment.CodeUnauthenticated {
		t.Errorf("before the key is made: %v", err)
	}
	insert(t, pool, later)
	if _, err := a.AuthenticateWithin(t.Context(), laterText, here, within); err != nil {
		t.Errorf("once the key is made, within the limit: %v", err)
	}
	insert(t, pool, old)
	a.memory.learned = a.memory.learned.Add(-learnPause)
	if _, err := a.AuthenticateWithin(t.Context(), oldText, here, all); err != nil {
		t.Errorf("once the key is made, beyond the limit: %v", err)
	}
	for what, wrong := range map[string]string{"the id of a key": FormatKey(ModeTest, first.ID, [20]byte{1}), "no key": "x"} {
		if _, err := a.AuthenticateWithin(t.Context(), wrong, here, all); !errors.Is(err, errLimited) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := a.AuthenticateWithin(t.Context(), wrongOf(t), here, nil); code(err) != payment.CodeUnauthenticated {
		t.Errorf("without a limit: %v", err)
	}
}

func code(err error) payment.Code {
	if e, ok := errors.AsType[*payment.Error](err); ok {
		return e.Code
	}
	return ""
}

func wrongOf(t *testing.T) string {
	t.Helper()
	text, _ := newKey(t, newPepper(t), ModeTest, RoleOperator, "")
	return text
}

func TestKeysSince(t *testing.T) {
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	id := payment.FirstID(payment.PrefixKey, at)
	after := keysSince(payment.Generator{Now: func() time.Time { return at }, Random: strings.NewReader("0123456789")}.New(payment.PrefixKey))
	if after >= id || after < payment.FirstID(payment.PrefixKey, at.Add(-idSlack-time.Millisecond)) {
		t.Errorf("%s, of %s", after, id)
	}
	if keysSince("") != "" {
		t.Error("nothing is known, and not all is read")
	}
}
