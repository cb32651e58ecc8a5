package rekey

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"payments/internal/secret"
)

// The encryptions of a key add up over processes, and a rotated keyset counts its new key.
func TestTheUsesOfAKeyAddUp(t *testing.T) {
	w := newWorld(t)
	encrypt := func(c *secret.Cipher, n int) {
		t.Helper()
		for range n {
			if _, err := c.Encrypt([]byte("x"), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func(c *secret.Cipher) (n int64) {
		t.Helper()
		key, _ := c.Uses()
		if err := w.owner.QueryRow(t.Context(), `SELECT encryptions FROM encryption_uses WHERE key = $1`, key).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	_, one := w.keys()
	_, other := w.keys()
	registry := prometheus.NewRegistry()
	uses, err := NewUses(w.service, one, registry)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		encrypt(one, 3)
		if _, err := uses.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	encrypt(other, 5)
	if err := AddUses(t.Context(), w.service, other); err != nil {
		t.Fatal(err)
	}
	if n := count(one); n != 11 {
		t.Errorf("%d encryptions, want 11", n)
	}
	// What cannot be written is written later.
	encrypt(other, 2)
	w.exec(`ALTER TABLE encryption_uses RENAME TO away`)
	if err := AddUses(t.Context(), w.service, other); err == nil {
		t.Error("the uses are written to no table")
	}
	w.exec(`ALTER TABLE away RENAME TO encryption_uses`)
	if err := AddUses(t.Context(), w.service, other); err != nil {
		t.Fatal(err)
	}
	if n := count(other); n != 13 {
		t.Errorf("%d encryptions, want 13", n)
	}
	w.both(secret.AddKey)
	w.both(secret.PromoteKey)
	_, next := w.keys()
	encrypt(next, 1)
	if err := AddUses(t.Context(), w.service, next); err != nil {
		t.Fatal(err)
	}
	if _, err := uses.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := testutil.CollectAndCount(uses.uses); n != 2 || count(next) != 1 {
		t.Errorf("%d keys, the new one has %d", n, count(next))
	}
}
