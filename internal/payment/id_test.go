package payment

import (
	"bytes"
	"crypto/rand"
	"testing"
	"time"
)

// The vector of RFC 9562, appendix A.6 (017f22e2-79b0-7cc3-98c4-dc0c0c07398f),
// in the encoding of the TypeID specification.
func TestGeneratorMakesUUIDv7(t *testing.T) {
	at := time.UnixMilli(0x017f22e279b0)
	g := Generator{Now: func() time.Time { return at }, Random: bytes.NewReader([]byte{
		0x0c, 0xc3, 0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f,
	})}
	id := g.New(PrefixPayment)
	if want := "pay_01fwhe4ydgfk1shh6w1g60eecf"; id != want {
		t.Fatalf("got %s, want %s", id, want)
	}
	if got, ok := IDTime(PrefixPayment, id); !ok || !got.Equal(at) {
		t.Fatalf("got %v %v, want %v", got, ok, at)
	}
}

func TestValidIDRefusesWhatNewNeverMakes(t *testing.T) {
	id := Generator{Now: time.Now, Random: rand.Reader}.New(PrefixOrder)
	if !ValidID(PrefixOrder, id) {
		t.Fatalf("%s is refused", id)
	}
	for _, bad := range []string{
		"", "ord_", id[:len(id)-1], id + "0", "pay" + id[3:], "ord_8" + id[5:], id[:len(id)-1] + "u", "ord_0" + "\x00" + id[6:],
	} {
		if ValidID(PrefixOrder, bad) {
			t.Errorf("%q is accepted", bad)
		}
	}
}
