package secret

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"
)

// rotated is a keyset over its rotation: with a further key that is the primary, and
// with that one alone.
func rotated(t *testing.T, encoded string) (both, newAlone string) {
	t.Helper()
	if _, err := PromoteKey(encoded); err == nil {
		t.Error("promoted what has one key")
	}
	added := must[string](t)(AddKey(encoded))
	same := must[string](t)(DropOldKeys(added))
	if keyOf(t, same) != keyOf(t, encoded) || keyOf(t, added) != keyOf(t, encoded) {
		t.Error("a key that was only added is the primary")
	}
	both = must[string](t)(PromoteKey(added))
	return both, must[string](t)(DropOldKeys(both))
}

// keyOf is the primary's id.
func keyOf(t *testing.T, encoded string) uint32 {
	t.Helper()
	return must[*keyset.Handle](t)(parse(encoded)).KeysetInfo().GetPrimaryKeyId()
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestPepperRotates(t *testing.T) {
	first := must[string](t)(NewPepperKeyset())
	both, second := rotated(t, first)
	before, during, after := must[*Pepper](t)(ParseMAC(first)), must[*Pepper](t)(ParseMAC(both)), must[*Pepper](t)(ParseMAC(second))

	data := []byte("a secret of high entropy")
	old := before.MAC(data)
	if len(old) != 37 || !bytes.Equal(old, before.MAC(data)) {
		t.Fatalf("a MAC of %d bytes, or not deterministic", len(old))
	}
	fresh := during.MAC(data)
	for _, c := range []struct {
		name string
		p    *Pepper
		mac  []byte
		want bool
	}{
		{"old MAC, old key", before, old, true},
		{"old MAC, both keys", during, old, true},
		{"old MAC, old key removed", after, old, false},
		{"new MAC, old key", before, fresh, false},
		{"new MAC, both keys", during, fresh, true},
		{"new MAC, old key removed", after, fresh, true},
	} {
		if current := bytes.Equal(c.p.MAC(data), c.mac); c.p.Current(c.mac) != current {
			t.Errorf("%s: current is %v", c.name, !current)
		}
		if got := c.p.Verify(c.mac, data); got != c.want {
			t.Errorf("%s: verified is %v", c.name, got)
		}
	}
	if before.Verify(old, []byte("another")) || before.Verify(nil, data) || before.Verify(old[:36], data) {
		t.Error("a wrong MAC verifies")
	}
}

func TestCipherBindsAndRotates(t *testing.T) {
	first := must[string](t)(NewCipherKeyset())
	both, second := rotated(t, first)
	before, during, after := must[*Cipher](t)(ParseAEAD(first)), must[*Cipher](t)(ParseAEAD(both)), must[*Cipher](t)(ParseAEAD(second))

	plaintext, ad := []byte("ada@example.com"), []byte("orders.email/ord_1")
	sealed := must[[]byte](t)(before.Encrypt(plaintext, ad))
	if bytes.Contains(sealed, plaintext) {
		t.Fatal("the plaintext stands in the ciphertext")
	}
	for _, c := range []*Cipher{before, during} {
		if got := must[[]byte](t)(c.Decrypt(sealed, ad)); !bytes.Equal(got, plaintext) {
			t.Errorf("decrypted to %q", got)
		}
	}
	if _, err := after.Decrypt(sealed, ad); err == nil {
		t.Error("a removed key still decrypts")
	}
	if _, err := before.Decrypt(sealed, []byte("orders.email/ord_2")); err == nil {
		t.Error("the ciphertext of one row decrypts in another")
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := before.Decrypt(sealed, ad); err == nil {
		t.Error("a changed ciphertext decrypts")
	}
}

func TestKeysetsThatAreRefused(t *testing.T) {
	pepper, cipher := must[string](t)(NewPepperKeyset()), must[string](t)(NewCipherKeyset())
	json := must[[]byte](t)(base64.StdEncoding.DecodeString(pepper))
	_, value, _ := strings.Cut(string(json), `"value":"`)
	material := value[:20]
	broken := base64.StdEncoding.EncodeToString(bytes.Replace(json, []byte(`"keyData"`), []byte(material), 1))
	parseMAC := func(s string) error { _, err := ParseMAC(s); return err }
	parseAEAD := func(s string) error { _, err := ParseAEAD(s); return err }
	for _, c := range []struct {
		name, value, want string
		parse             func(string) error
	}{
		{"empty", " \n", "is empty, and has to be a Tink keyset in base64", parseMAC},
		{"not base64", string(json), "is not base64", parseMAC},
		{"not JSON", broken, "is not a Tink keyset in cleartext JSON", parseMAC},
		{"truncated", base64.StdEncoding.EncodeToString(json[:len(json)-9]), "is not a Tink keyset in cleartext JSON", parseAEAD},
		{"a cipher as pepper", cipher, "holds a key that is not an HMAC key", parseMAC},
		{"a short tag", must[string](t)(generate(mac.HMACSHA256Tag128KeyTemplate())),
			"holds an HMAC key that is not SHA-256 with a 256-bit key and tag", parseMAC},
		{"another hash", must[string](t)(generate(mac.HMACSHA512Tag256KeyTemplate())),
			"holds an HMAC key that is not SHA-256 with a 256-bit key and tag", parseMAC},
		{"a pepper as cipher", pepper, "holds a key that is not for authenticated encryption (AEAD)", parseAEAD},
	} {
		err := c.parse(c.value)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	p := must[*Pepper](t)(ParseMAC(must[string](t)(NewPepperKeyset())))
	c := must[*Cipher](t)(ParseAEAD(must[string](t)(NewCipherKeyset())))
	if got := fmt.Sprintf("%v %+v %#v %s", p, p, c, c); got != "secret.Pepper secret.Pepper secret.Cipher secret.Cipher" {
		t.Errorf("printed %s", got)
	}
}
