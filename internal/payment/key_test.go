package payment

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"
)

func TestABusinessKeyHasOneForm(t *testing.T) {
	const key = "Café 7"
	for _, spelling := range []string{
		key, norm.NFD.String(key), "Cafe\u0301 7", " " + key, key + "  ", "\u00a0" + key, key + "\u2007", "\u202f" + key + "\u3000", key + "\u1680", "\u2000" + key + "\u205f", key + "\u2029",
	} {
		if got, err := BusinessKey(spelling, MaxReference); got != key || err != nil {
			t.Errorf("%+q: %+q, %v", spelling, got, err)
		}
	}
	// What stays another key.
	for _, other := range []string{"café 7", "Cafe 7", "Café  7", "Café\u00a07", "Café7", "Ｃafé 7", "Café ７", "Cаfé 7", "Café 7\u0301"} {
		if got, err := BusinessKey(other, MaxReference); got != other || err != nil {
			t.Errorf("%+q: %+q, %v", other, got, err)
		}
	}
	// Singletons and Hangul, whose forms NFC makes one.
	for given, want := range map[string]string{"\u212b": "\u00c5", "\u2126": "\u03a9", "\u1112\u1161\u11ab": "\ud55c", "\u1e9b\u0323": "\u1e9b\u0323", "q\u0307\u0323": "q\u0323\u0307"} {
		if got, err := BusinessKey(given, MaxReference); got != want || err != nil {
			t.Errorf("%+q: %+q, %v", given, got, err)
		}
	}
}

func TestABusinessKeyShowsAllOfIt(t *testing.T) {
	unseen := []string{
		"\u200b", "\u200c", "\u200d", "\u200e", "\u200f", "\ufeff", "\u2060", "\u2061", "\u2064", "\u2066", "\u2069", "\u202a", "\u202e", "\u00ad", "\u180e", "\u180b", "\u061c", "\u034f",
		"\u115f", "\u1160", "\u3164", "\uffa0", "\u17b4", "\u2800", "\ufe00", "\ufe0f", "\ufff9", "\U000e0001", "\U000e0020", "\U000e0061", "\U000e007f", "\U000e0100", "\U000e01ef", "\U0001d159",
		"\x00", "\x1b", "\t", "\n", "\x7f", "\u0085", "\u009f", "\u0378", "\uffff",
	}
	for _, u := range unseen {
		for _, key := range []string{u, u + "A-1", "A" + u + "1", "A-1" + u, " " + u + " "} {
			if got, err := BusinessKey(key, MaxReference); err == nil {
				t.Errorf("%+q is taken as %+q", key, got)
			}
		}
	}
	for key, why := range map[string]string{
		"": "empty", " ": "blank", "\u00a0\u3000": "blank", "\u2028": "blank", "A\u2028B": "invisible", "👩\u200d💻": "invisible", "❤\ufe0f": "invisible", "a\xff": "UTF-8",
		strings.Repeat("x", 65): "64", strings.Repeat("x", 63) + "\u0958": "NFC", strings.Repeat("e\u0301", 33): "64",
	} {
		if _, err := BusinessKey(key, MaxReference); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%+q: %v, want %q", key, err, why)
		}
	}
}

func TestEveryKeyOfAnOrderIsABusinessKey(t *testing.T) {
	d := Draft{
		Amount: 1, Currency: "EUR", PaymentMethod: "pm_x", CustomerReference: "\u00a0Zoe\u0308", OrderReference: "A\u030a ",
		Lines: []DraftLine{{SKU: " LAT/78 B", Quantity: 1, UnitAmount: 1}},
	}
	o, err := NewOrder(d)
	if err != nil || o.CustomerReference() != "Zo\u00eb" || o.Reference() != "\u00c5" || o.Lines()[0].SKU() != "LAT/78 B" {
		t.Errorf("%+v, %v", o, err)
	}
	if s, err := NewStock("", "mer_01m8702cvkfn8aqyvxe63m804e", "LAT/78 B\u3000", 1); err != nil || s.SKU() != "LAT/78 B" {
		t.Errorf("%+v, %v", s, err)
	}
	d.CustomerReference, d.OrderReference, d.Lines[0].SKU = "c\u200b", "\u2007", "\u00ad"
	var refused *Error
	if _, err = NewOrder(d); !errors.As(err, &refused) || len(refused.Fields) != 3 {
		t.Errorf("%v", err)
	}
	// What was accepted before is read as it was written.
	if o, err = StoredOrder(d); err != nil || o.CustomerReference() != "c\u200b" || o.Reference() != "\u2007" {
		t.Errorf("%+v, %v", o, err)
	}
}
