package idempotency

import (
	"errors"
	"strings"
	"testing"
)

func TestParseKey(t *testing.T) {
	long := strings.Repeat("k", 255)
	for _, c := range []struct {
		name   string
		header []string
		want   string
		err    error
	}{
		{"none", nil, "", ErrMissing},
		{"empty", []string{""}, "", ErrMissing},
		{"white space", []string{" \t"}, "", ErrMissing},
		{"two headers", []string{"a", "b"}, "", ErrInvalid},
		{"the same twice", []string{"a", "a"}, "", ErrInvalid},
		{"bare", []string{"abc"}, "abc", nil},
		{"quoted", []string{`"abc"`}, "abc", nil},
		{"space around", []string{` "abc" `}, "abc", nil},
		{"one character", []string{"!"}, "!", nil},
		{"the last visible", []string{"~"}, "~", nil},
		{"255", []string{long}, long, nil},
		{"256", []string{long + "k"}, "", ErrInvalid},
		{"255 quoted", []string{`"` + long + `"`}, long, nil},
		{"256 quoted", []string{`"` + long + `k"`}, "", ErrInvalid},
		{"255 with escapes", []string{`"` + strings.Repeat(`\"`, 255) + `"`}, strings.Repeat(`"`, 255), nil},
		{"escapes", []string{`"a\"b\\c"`}, `a"b\c`, nil},
		{"bare with a quote inside", []string{`a"b\c`}, `a"b\c`, nil},
		{"another escape", []string{`"a\nb"`}, "", ErrInvalid},
		{"an escape at the end", []string{`"ab\"`}, "", ErrInvalid},
		{"a backslash at the end", []string{`"ab\`}, "", ErrInvalid},
		{"an empty string", []string{`""`}, "", ErrInvalid},
		{"a lone quote", []string{`"`}, "", ErrInvalid},
		{"not closed", []string{`"abc`}, "", ErrInvalid},
		{"something behind", []string{`"abc";a=1`}, "", ErrInvalid},
		{"two strings", []string{`"a", "b"`}, "", ErrInvalid},
		{"space inside", []string{"a b"}, "", ErrInvalid},
		{"space inside quotes", []string{`"a b"`}, "", ErrInvalid},
		{"non-ASCII", []string{"schlüssel"}, "", ErrInvalid},
		{"not UTF-8", []string{"a\xff"}, "", ErrInvalid},
		{"DEL", []string{"a\x7f"}, "", ErrInvalid},
		{"NUL", []string{"a\x00"}, "", ErrInvalid},
		{"NUL in quotes", []string{"\"a\x00\""}, "", ErrInvalid},
	} {
		got, err := ParseKey(c.header)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: got %q, %v", c.name, got, err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(`"a\"b"`)
	f.Add("abc")
	f.Fuzz(func(t *testing.T, value string) {
		key, err := ParseKey([]string{value})
		if err != nil {
			return
		}
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
		if again, err := ParseKey([]string{quoted}); err != nil || again != key {
			t.Errorf("%q is %q, and quoted %q, %v", value, key, again, err)
		}
	})
}

func TestFingerprint(t *testing.T) {
	of := func(method, route, body string) [32]byte {
		t.Helper()
		f, err := Fingerprint(method, route, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	base := of("POST", "/v1/payments", `{"a":1,"b":{"c":[1,2],"d":"x"}}`)
	for name, body := range map[string]string{
		"order":           `{"b":{"d":"x","c":[1,2]},"a":1}`,
		"white space":     " {\n\"a\" : 1,\t\"b\" : { \"c\" : [ 1 , 2 ] , \"d\" : \"x\" } } \r\n",
		"needless escape": `{"a":1,"b":{"c":[1,2],"\u0064":"\u0078"}}`,
	} {
		if of("POST", "/v1/payments", body) != base {
			t.Errorf("%s makes a difference", name)
		}
	}
	seen := map[[32]byte]string{base: "base"}
	for _, c := range []struct{ method, route, body string }{
		{"PUT", "/v1/payments", `{"a":1,"b":{"c":[1,2],"d":"x"}}`},
		{"POST", "/v1/payments/", `{"a":1,"b":{"c":[1,2],"d":"x"}}`},
		{"POST/", "v1/payments", `{"a":1,"b":{"c":[1,2],"d":"x"}}`},
		{"POST", "/v1/payments", `{"a":1,"b":{"c":[2,1],"d":"x"}}`},
		{"POST", "/v1/payments", `{"a":1,"b":{"c":[1,2],"d":"X"}}`},
		{"POST", "/v1/payments", `{"a":"1","b":{"c":[1,2],"d":"x"}}`},
		{"POST", "/v1/payments", `{"a":9007199254740992}`},
		{"POST", "/v1/payments", `{"a":9007199254740993}`},
		{"POST", "/v1/payments", `{"a":9007199254740992.0}`},
		{"POST", "/v1/payments", `{"a":0.1}`},
		{"POST", "/v1/payments", `{"a":0.10000000000000000001}`},
		{"POST", "/v1/payments", `{}`},
		{"POST", "/v1/payments", ``},
		{"POST", "/v1/payments", `null`},
	} {
		f, this := of(c.method, c.route, c.body), c.method+" "+c.route+" "+c.body
		if other, ok := seen[f]; ok {
			t.Errorf("%s is taken for %s", this, other)
		}
		seen[f] = this
	}
	for _, bad := range []string{`{`, `{"a":1,"a":1}`, `{"a":1,"\u0061":1}`, `{}{}`, "\xff", `{"a":01}`, " "} {
		if _, err := Fingerprint("POST", "/", []byte(bad)); err == nil {
			t.Errorf("%q has a fingerprint", bad)
		}
	}
	body := []byte(` {"b":1, "a":2}`)
	if _, err := Fingerprint("POST", "/", body); err != nil || string(body) != ` {"b":1, "a":2}` {
		t.Errorf("the body was changed to %s", body)
	}
}
