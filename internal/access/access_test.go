package access

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/devstack/devtest"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/secret"
)

// here is where the tests' requests come from.
var here = netip.MustParseAddr("192.0.2.7")

var generator = payment.Generator{Now: time.Now, Random: rand.Reader}

func newPepper(t *testing.T) *secret.Pepper {
	t.Helper()
	value, err := secret.NewPepperKeyset()
	if err != nil {
		t.Fatal(err)
	}
	p, err := secret.ParseMAC(value)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newKey(t *testing.T, p *secret.Pepper, mode Mode, role Role, merchant string) (string, Key) {
	t.Helper()
	holder := ""
	if !role.OfMerchant() {
		holder = "ada"
	}
	text, k, err := NewKey(generator, p, KeySpec{Mode: mode, Role: role, MerchantID: merchant, Holder: holder, APIVersion: "2026-11-01"})
	if err != nil {
		t.Fatal(err)
	}
	return text, k
}

func TestKeyFormat(t *testing.T) {
	var random [20]byte
	for i := range random {
		random[i] = byte(i * 13)
	}
	// The check digits were computed apart from this code, with Python's zlib.crc32.
	const want = "sk_test_01fwhe4ydgfk1shh6w1g60eecf" + "006hm9sm8575pt3nga7ssadprf8dvtqq" + "4hhfa5g"
	got := FormatKey(ModeTest, "key_01fwhe4ydgfk1shh6w1g60eecf", random)
	if got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	c, err := ParseKey(got)
	if err != nil || c.Mode != ModeTest || c.KeyID != "key_01fwhe4ydgfk1shh6w1g60eecf" || got[:len(got)-7] != c.maced {
		t.Fatalf("parsed to %s %s, %v", c.Mode, c, err)
	}
	if s := fmt.Sprintf("%v %+v %#v %s", c, c, c, c); strings.Contains(s, got[40:60]) {
		t.Errorf("the secret is printed: %s", s)
	}
}

func TestParseKeyFindsEverySlip(t *testing.T) {
	text, _ := newKey(t, newPepper(t), ModeLive, RoleOperator, "")
	if _, err := ParseKey(text); err != nil {
		t.Fatal(err)
	}
	for i := range text {
		for _, r := range []byte("0az7_O\x00\xff") {
			if slip := text[:i] + string(rune(r)) + text[i+1:]; r != text[i] {
				if _, err := ParseKey(slip); err == nil {
					t.Errorf("character %d changed to %q is not found", i, r)
				} else if strings.Contains(err.Error(), text[len(text)-20:]) {
					t.Errorf("the error repeats the key: %v", err)
				}
			}
		}
		if i > 0 && text[i] != text[i-1] {
			swapped := []byte(text)
			swapped[i], swapped[i-1] = swapped[i-1], swapped[i]
			if _, err := ParseKey(string(swapped)); err == nil {
				t.Errorf("characters %d and %d exchanged are not found", i-1, i)
			}
		}
	}
	for _, bad := range []string{"", "sk_", "sk_test_", text[:len(text)-1], text + "0", " " + text, "sk_test_" + text[8:], strings.ToUpper(text)} {
		if _, err := ParseKey(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestNewKeyRefusesWhatTheSchemaWould(t *testing.T) {
	p := newPepper(t)
	merchant := generator.New(payment.PrefixMerchant)
	for _, c := range []struct {
		mode             Mode
		role             Role
		merchant, holder string
	}{
		{"", RoleMerchant, merchant, ""}, {ModeTest, "root", merchant, ""}, {ModeTest, RoleMerchant, "", ""},
		{ModeTest, RoleMerchant, "mer_1", ""}, {ModeTest, RoleOperator, merchant, "ada"}, {ModeTest, RoleMerchant, merchant, " "},
		{ModeTest, RoleOperator, "", ""}, {ModeTest, RoleSupport, "", ""}, {ModeTest, RoleAuditor, "", ""}, {ModeTest, RoleOperator, "", "ada "},
	} {
		if _, _, err := NewKey(generator, p, KeySpec{Mode: c.mode, Role: c.role, MerchantID: c.merchant, Holder: c.holder, APIVersion: "2026-11-01"}); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func open(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	pool, err := postgres.Open(tb.Context(), devtest.Database(tb).URL)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	return pool
}

func insert(t *testing.T, pool *pgxpool.Pool, keys ...Key) {
	t.Helper()
	err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error {
		for _, k := range keys {
			if k.MerchantID != "" {
				if _, err := tx.Exec(t.Context(), `INSERT INTO merchants (id, name) VALUES ($1, 'A merchant')`, k.MerchantID); err != nil {
					return err
				}
			}
			if err := InsertKey(t.Context(), tx, k); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAuthenticate(t *testing.T) {
	pool, pepper := open(t), newPepper(t)
	a := NewAuthenticator(pool, pepper)
	merchantID := generator.New(payment.PrefixMerchant)
	text, key := newKey(t, pepper, ModeTest, RoleMerchant, merchantID)
	operatorText, operator := newKey(t, pepper, ModeLive, RoleOperator, "")
	revokedText, revoked := newKey(t, pepper, ModeTest, RoleOperator, "")
	foreignText, foreign := newKey(t, newPepper(t), ModeTest, RoleOperator, "")
	unknownText, _ := newKey(t, pepper, ModeTest, RoleOperator, "")
	insert(t, pool, key, operator, revoked, foreign)
	if _, err := pool.Exec(t.Context(), `UPDATE api_keys SET revoked_at = now() WHERE id = $1`, revoked.ID); err != nil {
		t.Fatal(err)
	}

	for bearer, want := range map[string]Principal{
		text:         {key.ID, merchantID, RoleMerchant, "", "2026-11-01"},
		operatorText: {operator.ID, "", RoleOperator, "ada", "2026-11-01"},
	} {
		if got, err := a.Authenticate(t.Context(), bearer, here); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}

	// Every verdict costs one MAC, of a stored form and a credential of the usual length.
	var work []string
	var found bool
	a.verify = func(mac, data []byte) bool {
		// A wrong secret of a key that exists finds as little as an id that nobody has.
		found = !bytes.Equal(mac, a.dummyMAC)
		work = append(work, fmt.Sprint(len(mac), " ", len(data)))
		return pepper.Verify(mac, data)
	}
	usual := []string{fmt.Sprint(len(key.MAC), " ", len(text)-checkLength)}

	wrongSecret := FormatKey(ModeTest, key.ID, [20]byte{1})
	otherMode := "sk_live_" + text[8:len(text)-7]
	otherMode += checkDigits(otherMode)
	otherID := FormatKey(ModeTest, operator.ID, [20]byte{})[:34] + text[34:len(text)-7]
	otherID += checkDigits(otherID)
	dummy := a.dummy.maced + checkDigits(a.dummy.maced)
	answers := map[string]bool{}
	for name, bearer := range map[string]string{
		"missing": "", "malformed": "sk_test_x", "mistyped": text[:len(text)-1] + "!", "too long": strings.Repeat("a", 8<<10),
		"not UTF-8": "\xff\x00", "unknown": unknownText, "revoked": revokedText, "wrong secret": wrongSecret,
		"another mode": otherMode, "the id of another key": otherID, "made under another pepper": foreignText, "the dummy": dummy,
	} {
		work = nil
		got, err := a.Authenticate(t.Context(), bearer, here)
		if !slices.Equal(work, usual) {
			t.Errorf("%s: verified %q, want %q", name, work, usual)
		}
		if found != (name == "revoked") {
			t.Errorf("%s: a key is found: %t", name, found)
		}
		var e *payment.Error
		if got != (Principal{}) || !errors.As(err, &e) || e.Code != payment.CodeUnauthenticated {
			t.Errorf("%s: got %+v, %v", name, got, err)
			continue
		}
		answers[fmt.Sprintf("%+v", *e)] = true
	}
	if len(answers) != 1 {
		t.Errorf("the refusals differ: %v", answers)
	}
}

// Even a row that should never be there, of the dummy itself, lets nobody in.
func TestTheDummyIsNobody(t *testing.T) {
	pool, pepper := open(t), newPepper(t)
	a := NewAuthenticator(pool, pepper)
	insert(t, pool, Key{ID: a.dummy.KeyID, Role: RoleOperator, Holder: "ada", MAC: pepper.MAC([]byte(a.dummy.maced)), APIVersion: "2026-11-01"})
	if p, err := a.Authenticate(t.Context(), "malformed", here); err == nil {
		t.Errorf("got in as %+v", p)
	}
}

func TestAuthenticateWithoutDatabase(t *testing.T) {
	pool, pepper := open(t), newPepper(t)
	a := NewAuthenticator(pool, pepper)
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if _, err := a.Authenticate(ctx, "sk_test_x", here); !postgres.Unavailable(err) {
		t.Errorf("got %v, want an error that says the database is unavailable", err)
	}
	down, err := postgres.Open(t.Context(), "postgres://nobody@127.0.0.1:1/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	defer down.Close()
	if _, err := NewAuthenticator(down, pepper).Authenticate(t.Context(), "", here); !postgres.Unavailable(err) {
		t.Errorf("got %v, want an error that says the database is unavailable", err)
	}
}

func TestInsertKeyOfNoMerchant(t *testing.T) {
	pool := open(t)
	_, key := newKey(t, newPepper(t), ModeTest, RoleMerchant, generator.New(payment.PrefixMerchant))
	err := postgres.InTx(t.Context(), pool, func(tx pgx.Tx) error { return InsertKey(t.Context(), tx, key) })
	var e *payment.Error
	if !errors.As(err, &e) || e.Code != payment.CodeNotFound {
		t.Errorf("got %v", err)
	}
}
