package api

import (
	"strconv"
	"strings"

	"payments/internal/access"
	"payments/internal/payment"
)

func valid(values ...any) (all []boundary) {
	for _, v := range values {
		all = append(all, boundary{value: v, valid: true})
	}
	return all
}

func refused(by string, values ...any) (all []boundary) {
	for _, v := range values {
		all = append(all, boundary{value: v, refusedBy: by})
	}
	return all
}

// unsaid: why is for who reads the table.
func unsaid(in layer, why, by string, values ...any) []boundary {
	if why == "" {
		panic("why?")
	}
	all := refused(by, values...)
	for i := range all {
		all[i].unsaid = in
	}
	return all
}

func apiVersions() [][]boundary {
	return [][]boundary{
		valid(NewestVersion(), firstVersion), refused("", "", "x", "2026-13-01", "2026-02-29"),
		unsaid(inDatabase, "a date is read in many forms", "", "2026-11-1", "20261101", "2026-11-01 ", "2026-11-01\n", "today"),
	}
}

func long(n int) string { return strings.Repeat("x", n) }

// lines of text of at most n characters.
func text(n int, tooLong, control string) [][]boundary {
	return [][]boundary{
		valid("x", long(n), strings.Repeat("ü", n), strings.Repeat("🎁", n), "a\u00a0b", "日本 🎁", "\u200b"),
		refused(tooLong, "", long(n+1), strings.Repeat("ü", n+1)),
		refused(control, "a\nb", "a\x01b", "a\x7fb", "a\u0085b", "\t"),
		refused("", "a\x00b"),
	}
}

func reasons(by string) [][]boundary {
	return append(text(payment.MaxReason, by, by), valid(" a "), refused(by, " ", "     "))
}

// holders have one spelling each: no accents, no letters of another script, and no space that is not seen.
func holders() [][]boundary {
	return [][]boundary{
		valid("x", "!", "~", "Ada Lovelace", "ada@example.com", "key_01m86y4ap9ecqaxaqqqxxb77hg", "a b c", long(payment.MaxHolder)),
		refused("api_keys_holder", "", " ", " ada", "ada ", "a  b", "a\tb", "ada\n", "a\x01b", "a\x7fb", "a\u0085b", "a\u00a0b", "ada\u200b",
			"Zo\u00eb", "Zoe\u0308", "\u0430da", "\uff41da", "日本", long(payment.MaxHolder+1)),
		refused("", "a\x00b"),
	}
}

const hookURL = "https://example.com/"

// moments are kept nowhere.
func moments() [][]boundary {
	return [][]boundary{
		valid("2026-11-01T00:00:00Z", "2026-11-01T23:59:59.999999999+14:00", "9999-12-31T23:59:59Z"),
		unsaid(inDatabase, "what is asked for is kept nowhere", "", "", "soon", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z", "2026-11-01T00:00:00,5Z", "2026-11-01",
			"2026-11-01 00:00:00Z", "2026-11-01t00:00:00z", "2026-11-01T00:00:00", "2026-11-01T1:00:00Z", "2026-11-01T23:59:60Z"),
	}
}

func urls() [][]boundary {
	const form = "webhook_endpoints_url"
	return [][]boundary{
		valid(hookURL, "https://example.com", "https://example.com?a=b", "https://example.com./", "https://example.com:443/", "https://example.com:1024/",
			"https://example.com:65535/", "https://a-b_c.example.com/a/b;c?d=%C3%BC", "https://8.8.8.8/", "https://[2606:4700::1111]/",
			"https://"+long(63)+".example.com/", hookURL+strings.Repeat("a", 2048-len(hookURL))),
		refused(form, "", "example.com", "/", "https://", "https:///a", "https:example.com", "ftp://example.com/", "HTTPS://example.com/", " "+hookURL,
			"https://a:b@example.com/", "https://a@example.com/", hookURL+"#f", hookURL+"#", hookURL+"a b", hookURL+"a\n", hookURL+"ü", hookURL+`\a`, hookURL+"%zz", hookURL+"%a", hookURL+"[a]",
			hookURL+"?%zz", hookURL+"|", hookURL+"<a>", "https://exämple.com/", "https://example..com/", "https://.example.com/", "https://-example.com/",
			"https://example.com:/", "https://example.com:a/", "https://example.com:443443/", "https://"+long(64)+".example.com/",
			hookURL+strings.Repeat("a", 2049-len(hookURL))),
		refused("", hookURL+"\x00"),
		unsaid(inDatabase|inDocument, "webhook.Guard knows which addresses and ports may be delivered to", "", "http://example.com/", "https://127.0.0.1/",
			"https://10.1.2.3/", "https://[::1]/", "https://169.254.169.254/", "https://localhost/", "https://a.internal/", "https://2130706433/",
			"https://example.com:22/", "https://example.com:0/", "https://example.com:65536/"),
		unsaid(inDatabase, "as above", "", "https://[:::]/"),
	}
}

func eventTypes() []any {
	all := make([]any, len(payment.EventTypes))
	for i, e := range payment.EventTypes {
		all[i] = string(e)
	}
	return all
}

func emails() [][]boundary {
	const why = "the database sees a ciphertext"
	return [][]boundary{
		valid("a@b", "ada@example.com", "a.b+c@sub.example.com", "o'hara@example.com", ".a@b", "a.@b", "a..b@c", "ü@exämple.com", "日本@例え.jp", "a@b_c", long(64)+"@"+long(189), "!#$%&'*+-/=?^_`{|}~@x"),
		unsaid(inDatabase, why, "", "", "a", "@", "a@", "@b", "a@@b", "a@b@c", "a b@c", "a@b ", " a@b", "a@.b", "a@b.", "a@b..c", `"a"@b`,
			"a(c)@b", "Ada <a@b>", "<a@b>", "a,b@c", "a@[127.0.0.1]", "a@b\n", "a\u00a0b@c", "a\x00@b", "a\x7f@b", long(64)+"@"+long(190)),
	}
}

// keys are a merchant's own names, each with one stored form.
func keys(tooLong, control, notAKey string) [][]boundary {
	return [][]boundary{
		valid("x", "0", "a._-", "LAT/78", "AB 12", "=a", long(64), strings.Repeat("ü", 64), strings.Repeat("🎁", 64), "日本 🎁", "a\u00a0b", "a\u3000b", "Ａ", "ﬁ"),
		// Another spelling of a key: what is kept is the key.
		valid(" b", "c ", "\u00a0d\u2007", "\u202fe\u3000", "f\u1680\u2028", "u\u0308", "\u212b", "\u1112\u1161\u11ab"),
		refused(tooLong, "", long(65), strings.Repeat("ü", 65)),
		refused(control, "a\nb", "a\x01b", "a\x7fb", "a\u0085b", "\t", "a\n"),
		unsaid(inDocument, "a pattern of JSON Schema knows no classes of Unicode", notAKey, " ", "\u00a0\u3000", "\u200b", "a\u200b", "a\u200cb", "a\u200d", "\u200ea", "a\u200fb",
			"a\u202eb", "a\u2060b", "a\u2066b", "\ufeffa", "a\u00adb", "a\u180eb", "a\u034fb", "\u3164", "a\uffa0", "\u115f", "\u2800", "❤\ufe0f", "👩\u200d💻", "a\U000e0061",
			"a\U000e0100", "a\u2028b", "\u06dd", "\ufff9a"),
		unsaid(inDocument|inDatabase, "unassigned: the versions of Unicode differ", "", "a\u0378", "a\uffff", "a\U0010ffff"),
		refused("", "a\x00b"),
	}
}

// keyColumn is what is kept of a key.
func keyColumn(v any) any {
	if key, err := payment.BusinessKey(v.(string), payment.MaxReference); err == nil {
		return key
	}
	return v
}

func skus() [][]boundary { return keys("sku_format", "sku_format", "sku_format") }

func references() [][]boundary {
	return append(keys("reference_length", "reference_no_control", "orders_business_keys"),
		// Of 64 characters as they are given, and 65 in NFC.
		unsaid(inDocument, "the length in NFC", "orders_business_keys", long(63)+"\u0958"))
}

// orNone is for a member that may be left out, and whose constructor would take the
// empty text for that: the API refuses it.
func orNone(v any) string {
	if v == "" {
		return "\x00"
	}
	return v.(string)
}

func words(v any) []string {
	all := []string{}
	for _, word := range v.([]any) {
		all = append(all, word.(string))
	}
	return all
}

func parseNetworks(all []string) error {
	for _, n := range all {
		if _, err := access.ParseNetwork(n); err != nil {
			return err
		}
	}
	if len(all) > access.MaxNetworks {
		return payment.Errorf(payment.CodeInvalid, "%s", "more than "+strconv.Itoa(access.MaxNetworks))
	}
	return nil
}

// plain text, as Postgres takes it, of a length that a name may have.
func plain() [][]boundary {
	return [][]boundary{valid("x", long(maxPlainText), "a\nb", "ü"), refused("", "", long(maxPlainText+1), "a\x00")}
}

func actions() [][]boundary {
	all := refused("", "", "payments:delete", "payments")
	for _, a := range access.Actions() {
		all = append(all, valid(string(a))...)
	}
	return [][]boundary{all}
}
