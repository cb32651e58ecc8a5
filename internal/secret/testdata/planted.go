// Package planted has every comparison that the rule of this directory's test
// refuses, each line of which ends with its mark, and their harmless likes.
package planted

import (
	"bytes"
	"crypto/hmac"
	"crypto/subtle"
	"reflect"
	"slices"
	"strings"
)

type key struct {
	MAC         []byte
	storedToken string
}

func planted(k key, apiSecret, given string, signature, want []byte, h interface{ Sum([]byte) []byte }) (n int) {
	if apiSecret == given { // planted
		n++
	}
	if given != k.storedToken { // planted
		n++
	}
	if string(want) == string(h.Sum(nil)) { // planted
		n++
	}
	if bytes.Equal(signature, want) { // planted
		n++
	}
	if !bytes.Equal(want, k.MAC[:]) { // planted
		n++
	}
	if strings.EqualFold(given, apiSecret) { // planted
		n++
	}
	if reflect.DeepEqual(want, signature) { // planted
		n++
	}
	if slices.Contains([]string{given}, apiSecret) { // planted
		n++
	}
	if hmac.Equal(want, want) { // planted
		n++
	}
	if subtle.ConstantTimeCompare(want, want) == 1 { // planted
		n++
	}
	switch apiSecret { // planted
	case given:
	}
	return n
}

func harmless(k key, apiSecret, given string, macintosh, want []byte) bool {
	if k.storedToken == given { // no secret: whoever has it may read it
		return true
	}
	return apiSecret == "" || k.MAC == nil || len(k.MAC) != len(want) || given == "secret" || bytes.Equal(macintosh, want)
}
