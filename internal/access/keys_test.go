package access

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/idempotency"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/secret"
)

func refusedAs(err error, code payment.Code) bool {
	e, ok := errors.AsType[*payment.Error](err)
	return ok && e.Code == code
}

func refusedKey(err error) bool { return refusedAs(err, payment.CodeUnauthenticated) }

func request(key string) idempotency.Request {
	return idempotency.Request{MerchantID: "key_of_an_operator", Key: key}
}

func render(k APIKey) (idempotency.Response, error) {
	return idempotency.Response{ResourceID: k.ID, Status: 201}, nil
}

// operators are two persons with a key each, who act in the tests.
func operators(tb testing.TB, pool *pgxpool.Pool, pepper *secret.Pepper) (first, second By) {
	tb.Helper()
	by := func(holder string) By {
		_, key, err := NewKey(generator, pepper, KeySpec{Mode: ModeTest, Role: RoleOperator, Holder: holder, APIVersion: "2026-11-01"})
		if err == nil {
			err = postgres.InTx(tb.Context(), pool, func(tx pgx.Tx) error { return InsertKey(tb.Context(), tx, key) })
		}
		if err != nil {
			tb.Fatal(err)
		}
		return By{KeyID: key.ID, Holder: holder, Source: SourceAPI, Origin: "192.0.2.1", Others: true}
	}
	return by("ada"), by("grace")
}

func newKeys(pool *pgxpool.Pool, pepper *secret.Pepper) *Keys {
	return NewKeys(pool, pepper, generator, slog.New(slog.DiscardHandler))
}

// create makes a key by two persons.
func create(tb testing.TB, k *Keys, spec KeySpec) (string, APIKey) {
	tb.Helper()
	first, second := operators(tb, k.pool, k.pepper)
	spec.APIVersion = "2026-11-01"
	made, err := k.Create(tb.Context(), first, request(generator.New("req")), spec, render)
	if err != nil {
		tb.Fatal(err)
	}
	part, key, err := k.Approve(tb.Context(), second, made.Key.ID)
	if err != nil {
		tb.Fatal(err)
	}
	return made.Part + part, key
}

func TestNetworksAndExpiry(t *testing.T) {
	pool, pepper := open(t), newPepper(t)
	a, keys := NewAuthenticator(pool, pepper), newKeys(pool, pepper)
	over := time.Now().Add(-time.Second)
	for _, c := range []struct {
		networks []string
		from     string
		in       bool
	}{
		{nil, "192.0.2.7", true},
		{[]string{"192.0.2.0/24"}, "192.0.2.7", true}, {[]string{"192.0.2.0/24"}, "::ffff:192.0.2.7", true},
		{[]string{"192.0.2.0/24"}, "192.0.3.7", false}, {[]string{"198.51.100.1", "2001:db8::/32"}, "2001:db8::9", true},
		{[]string{"2001:db8::/32"}, "fe80::1%eth0", false}, {[]string{"fe80::/10"}, "fe80::1%eth0", true},
	} {
		spec := KeySpec{Mode: ModeTest, Role: RoleAuditor, Holder: "ada"}
		for _, n := range c.networks {
			p, err := ParseNetwork(n)
			if err != nil {
				t.Fatal(err)
			}
			spec.Networks = append(spec.Networks, p)
		}
		text, _ := create(t, keys, spec)
		if _, err := a.Authenticate(t.Context(), text, netip.MustParseAddr(c.from)); (err == nil) != c.in || err != nil && !refusedKey(err) {
			t.Errorf("%v from %s: %v", c.networks, c.from, err)
		}
		if _, err := a.Authenticate(t.Context(), text, netip.Addr{}); (err == nil) != (c.networks == nil) {
			t.Errorf("%v from nowhere: %v", c.networks, err)
		}
	}
	if _, err := keys.Create(t.Context(), By{Source: SourceCommandLine, Origin: "x"}, request(generator.New("req")), KeySpec{Mode: ModeTest, Role: RoleAuditor, Holder: "ada", ExpiresAt: &over, APIVersion: "2026-11-01"}, render); !refusedAs(err, payment.CodeInvalid) {
		t.Errorf("a key that is expired already: %v", err)
	}
	text, key := create(t, keys, KeySpec{Mode: ModeTest, Role: RoleAuditor, Holder: "ada"})
	if _, err := pool.Exec(t.Context(), `UPDATE api_keys SET created_at = $2, expires_at = $3 WHERE id = $1`, key.ID, over.Add(-time.Second), over); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(t.Context(), text, here); !refusedKey(err) {
		t.Errorf("expired: %v", err)
	}
	for _, bad := range []string{"", "192.0.2.1/24", "192.0.2.0/33", "::ffff:192.0.2.0/120", "fe80::1%eth0", "example.com"} {
		if _, err := ParseNetwork(bad); err == nil {
			t.Errorf("the network %q is accepted", bad)
		}
	}
}

func lastUsed(t *testing.T, pool *pgxpool.Pool, id string) (at *time.Time) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `SELECT last_used_at FROM api_keys WHERE id = $1`, id).Scan(&at); err != nil {
		t.Fatal(err)
	}
	return at
}

func TestLastUseIsWrittenOnceAMinute(t *testing.T) {
	pool, pepper := open(t), newPepper(t)
	a := NewAuthenticator(pool, pepper)
	text, key := create(t, newKeys(pool, pepper), KeySpec{Mode: ModeTest, Role: RoleAuditor, Holder: "ada"})
	useOnce := func() {
		t.Helper()
		if _, err := a.Authenticate(t.Context(), text, here); err != nil {
			t.Fatal(err)
		}
		if _, err := a.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.RunOnce(t.Context()); err != nil || lastUsed(t, pool, key.ID) != nil {
		t.Fatalf("never used: %v", err)
	}
	useOnce()
	first := lastUsed(t, pool, key.ID)
	if first == nil {
		t.Fatal("the use is not written")
	}
	useOnce()
	if at := lastUsed(t, pool, key.ID); !at.Equal(*first) {
		t.Errorf("written twice in a minute: %s and %s", first, at)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE api_keys SET last_used_at = last_used_at - interval '2 minutes'`); err != nil {
		t.Fatal(err)
	}
	useOnce()
	if at := lastUsed(t, pool, key.ID); at.Before(*first) {
		t.Errorf("not written a minute later: %s", at)
	}
	// A wrong secret is no use.
	if _, err := pool.Exec(t.Context(), `UPDATE api_keys SET last_used_at = NULL`); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(t.Context(), FormatKey(ModeTest, key.ID, [20]byte{1}), here); err == nil {
		t.Fatal("a wrong secret is accepted")
	}
	if _, err := a.RunOnce(t.Context()); err != nil || lastUsed(t, pool, key.ID) != nil {
		t.Errorf("a refused attempt counts as a use (%v)", err)
	}
}

// keyset joins the keys of keysets (Tink's JSON); the primary is the last one's.
func keyset(t *testing.T, encoded ...string) *secret.Pepper {
	t.Helper()
	var all struct {
		Primary json.Number       `json:"primaryKeyId"`
		Keys    []json.RawMessage `json:"key"`
	}
	for _, e := range encoded {
		b, err := base64.StdEncoding.DecodeString(e)
		if err != nil {
			t.Fatal(err)
		}
		one := all
		one.Keys = nil
		if err := json.Unmarshal(b, &one); err != nil {
			t.Fatal(err)
		}
		all.Primary, all.Keys = one.Primary, append(all.Keys, one.Keys...)
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	p, err := secret.ParseMAC(base64.StdEncoding.EncodeToString(b))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A key that is used while both peppers are there goes on after the old one is
// gone; one that was not is of no use any more.
func TestPepperRotatesOnUse(t *testing.T) {
	oldSet, err := secret.NewPepperKeyset()
	if err != nil {
		t.Fatal(err)
	}
	newSet, err := secret.NewPepperKeyset()
	if err != nil {
		t.Fatal(err)
	}
	before, during, after := keyset(t, oldSet), keyset(t, oldSet, newSet), keyset(t, newSet)
	pool := open(t)
	keys := newKeys(pool, before)
	used, usedKey := create(t, keys, KeySpec{Mode: ModeTest, Role: RoleAuditor, Holder: "ada"})
	idle, _ := create(t, keys, KeySpec{Mode: ModeTest, Role: RoleAuditor, Holder: "ada"})
	a := NewAuthenticator(pool, during)

	// Under load: nobody is refused while MACs are made anew.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				if _, err := a.Authenticate(t.Context(), used, here); err != nil {
					t.Errorf("refused while the pepper rotates: %v", err)
				}
				if _, err := a.RunOnce(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var mac []byte
	if err := pool.QueryRow(t.Context(), `SELECT mac FROM api_keys WHERE id = $1`, usedKey.ID).Scan(&mac); err != nil || !during.Current(mac) {
		t.Errorf("the MAC is not the primary's (%v)", err)
	}
	a = NewAuthenticator(pool, after)
	if _, err := a.Authenticate(t.Context(), used, here); err != nil {
		t.Errorf("used in time: %v", err)
	}
	if _, err := a.Authenticate(t.Context(), idle, here); !refusedKey(err) {
		t.Errorf("never used: %v", err)
	}
	if bytes.Contains(mac, []byte(used)) {
		t.Error("the key is stored")
	}
}

// One of the two keys always works, at every instant of rotations under load; and
// a revoked key is refused by every process at once.
func TestRotationRefusesNobody(t *testing.T) {
	pool, pepper := open(t), newPepper(t)
	keys := newKeys(pool, pepper)
	text, key := create(t, keys, KeySpec{Mode: ModeTest, Role: RoleAuditor, Holder: "ada"})
	ada, _ := operators(t, pool, pepper)
	var mu sync.Mutex
	current, done := text, make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		a := NewAuthenticator(pool, pepper) // a process of its own
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				mu.Lock()
				bearer := current
				mu.Unlock()
				if _, err := a.Authenticate(t.Context(), bearer, here); err != nil {
					t.Errorf("refused during a rotation: %v", err)
					return
				}
			}
		})
	}
	var spare []string
	for range 10 {
		made, err := keys.Rotate(t.Context(), ada, request(generator.New("req")), key.ID, ModeTest, time.Hour, render)
		if err != nil {
			t.Fatal(err)
		}
		spare = append(spare, text)
		mu.Lock()
		text, key, current = made.Secret, made.Key, made.Secret
		mu.Unlock()
	}
	close(done)
	wg.Wait()
	a := NewAuthenticator(pool, pepper)
	for _, s := range spare {
		if _, err := a.Authenticate(t.Context(), s, here); err != nil {
			t.Errorf("in its overlap: %v", err)
		}
	}
	made, err := keys.Rotate(t.Context(), ada, request("last"), key.ID, ModeTest, 0, render)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(t.Context(), text, here); !refusedKey(err) {
		t.Errorf("after an overlap of nothing: %v", err)
	}
	if again, err := keys.Rotate(t.Context(), ada, request("last"), key.ID, ModeTest, 0, render); err != nil || !again.Replayed || again.Secret != "" {
		t.Errorf("replay: %+v, %v", again, err)
	}
	if _, err := keys.Rotate(t.Context(), ada, request("more"), key.ID, ModeTest, 0, render); err == nil {
		t.Error("a key is rotated twice")
	}
	if _, err := keys.Revoke(t.Context(), ada, made.Key.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(t.Context(), made.Secret, here); !refusedKey(err) {
		t.Errorf("revoked: %v", err)
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	pool := open(b)
	encoded, err := secret.NewPepperKeyset()
	if err != nil {
		b.Fatal(err)
	}
	pepper, err := secret.ParseMAC(encoded)
	if err != nil {
		b.Fatal(err)
	}
	text, _ := create(b, newKeys(pool, pepper), KeySpec{Mode: ModeTest, Role: RoleAuditor, Holder: "ada"})
	a := NewAuthenticator(pool, pepper)
	for b.Loop() {
		if _, err := a.Authenticate(b.Context(), text, here); err != nil {
			b.Fatal(err)
		}
	}
}
