package contracttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Case differs from a request that the document has for an example in one place.
type Case struct {
	Name string
	// At is the JSON pointer of that place, in the words of a problem's errors: into the
	// body, or /query/… of a parameter. Empty: the whole.
	At string
	// Body is sent as it stands, and may be no JSON. Query holds one parameter, Header the
	// name of a field and Value what it has.
	Body, Query, Header, Value string
	// Allowed: the document has nothing against it.
	Allowed bool
	Base    string // the example
	// Choice: of a body that has several forms, where what is wrong may be said of another member.
	Choice bool
}

// hole stands for a value that is written later, as text.
const hole = "a7c1-hole"

// Bodies gives cases of every member of the operation's body, and of the body as a
// whole. The same random source gives the same cases.
func (c *Contract) Bodies(o Operation, random *rand.Rand) ([]Case, error) {
	pointer := o.pointer + "/requestBody/content/application~1json"
	media, _, ok := c.at(pointer)
	if !ok {
		return nil, nil
	}
	schema, schemaAt, _ := c.at(pointer + "/schema")
	var all []Case
	examples := examplesOf(media)
	whole, err := json.Marshal(schema)
	if err != nil {
		return nil, err
	}
	choice := bytes.Contains(whole, []byte(`"oneOf"`)) // of which each has its example
	if !choice {
		examples = examples[:min(len(examples), 1)]
	}
	for _, example := range examples {
		base, err := json.Marshal(example)
		if err != nil {
			return nil, err
		}
		g := generator{contract: c, schemaAt: schemaAt, base: string(base), random: random}
		g.member("", schema)
		g.whole()
		for _, c := range g.cases {
			c.Choice = choice
			all = append(all, c)
		}
	}
	return once(all), nil
}

// Members of the operation's body that hold no others, as pointers, and the schema.
func (c *Contract) Members(o Operation) (schema string, pointers []string, err error) {
	cases, err := c.Bodies(o, rand.New(rand.NewPCG(0, 0))) //nolint:gosec // none of it is used
	if err != nil || len(cases) == 0 {
		return "", nil, err
	}
	_, schema, _ = c.at(o.pointer + "/requestBody/content/application~1json/schema")
	at := map[string]bool{}
	for _, k := range cases {
		at[k.At] = !strings.HasSuffix(k.At, "/surprise") && k.At != ""
	}
	for pointer := range at {
		if i := strings.LastIndexByte(pointer, '/'); i > 0 && !strings.HasSuffix(pointer, "/0") {
			at[pointer[:i]] = false // holds it
		}
	}
	for pointer, leaf := range at {
		if leaf && !strings.HasSuffix(pointer, "/0") {
			pointers = append(pointers, pointer)
		}
	}
	slices.Sort(pointers)
	return schema, pointers, nil
}

func examplesOf(media map[string]any) (all []any) {
	if e, ok := media["example"]; ok {
		return []any{e}
	}
	named, _ := media["examples"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(named)) {
		e, _ := named[name].(map[string]any)
		all = append(all, e["value"])
	}
	return all
}

type generator struct {
	contract *Contract
	schemaAt string
	base     string
	random   *rand.Rand
	cases    []Case
}

// put writes text at the pointer of the example, which need not have the member.
func (g *generator) put(pointer, text string) (body string, ok bool) {
	var document any
	if err := json.Unmarshal([]byte(g.base), &document); err != nil {
		return "", false
	}
	if pointer == "" {
		return text, true
	}
	i := strings.LastIndexByte(pointer, '/')
	switch parent := step(document, pointer[:i]).(type) {
	case map[string]any:
		parent[pointer[i+1:]] = hole
	case []any:
		n, err := strconv.Atoi(pointer[i+1:])
		if err != nil || n >= len(parent) {
			return "", false
		}
		parent[n] = hole
	default:
		return "", false
	}
	b, err := json.Marshal(document)
	return strings.Replace(string(b), `"`+hole+`"`, text, 1), err == nil
}

func step(v any, pointer string) any {
	for name := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		switch in := v.(type) {
		case map[string]any:
			if name != "" {
				v = in[name]
			}
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(in) {
				return nil
			}
			v = in[i]
		default:
			return nil
		}
	}
	return v
}

func (g *generator) add(name, at, body string) {
	allowed := false
	if v, err := jsonschema.UnmarshalJSON(strings.NewReader(body)); err == nil {
		allowed = g.contract.Validate(g.schemaAt, v) == nil
	}
	g.cases = append(g.cases, Case{Name: name + " at " + at, At: at, Body: body, Base: g.base, Allowed: allowed})
}

// member gives cases of what the schema is of, and of all that it holds.
func (g *generator) member(at string, schema map[string]any) {
	schema = g.contract.resolve(schema)
	for _, text := range g.values(schema) {
		if body, ok := g.put(at, text); ok {
			g.add(fmt.Sprintf("%.40s", text), at, body)
		}
	}
	for _, alternative := range alternatives(schema) {
		g.members(at, g.contract.resolve(alternative))
	}
}

func alternatives(schema map[string]any) []map[string]any {
	choices, _ := schema["oneOf"].([]any)
	if len(choices) == 0 {
		return []map[string]any{schema}
	}
	var all []map[string]any
	for _, choice := range choices {
		m, _ := choice.(map[string]any)
		all = append(all, m)
	}
	return all
}

func (g *generator) members(at string, schema map[string]any) {
	var document any
	_ = json.Unmarshal([]byte(g.base), &document)
	switch here := step(document, at).(type) {
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(properties)) {
			property, _ := properties[name].(map[string]any)
			if given, ok := here[name]; ok {
				text, _ := json.Marshal(given)
				g.twice(at+"/"+name, string(text))
				g.without(document, here, at, name)
			}
			g.member(at+"/"+name, property)
		}
		if schema["additionalProperties"] == false {
			body, _ := g.put(at+"/surprise", "1")
			g.add("an unknown member", at+"/surprise", body)
		}
	case []any:
		if items, ok := schema["items"].(map[string]any); ok && len(here) > 0 {
			g.member(at+"/0", items)
		}
	}
}

// twice gives the member two times, which JSON Schema does not see.
func (g *generator) twice(at, text string) {
	body, ok := g.put(at, text+`,"`+at[strings.LastIndexByte(at, '/')+1:]+`":`+text)
	if ok {
		g.cases = append(g.cases, Case{Name: "given twice: " + at, At: at, Body: body, Base: g.base})
	}
}

func (g *generator) without(document any, here map[string]any, at, name string) {
	given := here[name]
	delete(here, name)
	body, _ := json.Marshal(document)
	here[name] = given
	g.add("missing", at+"/"+name, string(body))
}

// whole breaks the text of the body.
func (g *generator) whole() {
	broken := func(name, body string) {
		if body == g.base {
			return
		}
		g.cases = append(g.cases, Case{Name: name, Body: body, Base: g.base})
	}
	broken("nothing but space", " ")
	broken("trailing bytes", g.base+" x")
	broken("a second document", g.base+g.base)
	broken("a trailing comma", g.base[:len(g.base)-1]+","+g.base[len(g.base)-1:])
	broken("a byte order mark", "\ufeff"+g.base)
	broken("a comment", "/* */"+g.base)
	broken("single quotes", strings.ReplaceAll(g.base, `"`, "'"))
	broken("not a number", strings.Replace(g.base, `":`, `":NaN,"x":`, 1))
	broken("deep", strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000))
	broken("too large", g.base+strings.Repeat(" ", 256<<10))
	for range 5 {
		broken("cut off", g.base[:1+g.random.IntN(len(g.base)-1)])
	}
	if i := strings.Index(g.base, `":"`); i >= 0 {
		broken("invalid UTF-8", g.base[:i+3]+"\xff"+g.base[i+3:])
		broken("half a character", g.base[:i+3]+"\xe2\x82"+g.base[i+3:])
		broken("a NUL", g.base[:i+3]+"\x00"+g.base[i+3:])
		broken("a raw line break", g.base[:i+3]+"\n"+g.base[i+3:])
		broken("half a surrogate", g.base[:i+3]+`\ud800`+g.base[i+3:])
		broken("a wrong escape", g.base[:i+3]+`\x41`+g.base[i+3:])
	}
}

// values, as JSON, that may be wrong for a member of the schema: whether they are is
// for the schema itself to say.
func (g *generator) values(schema map[string]any) []string {
	all := []string{
		`null`, `true`, `false`, `{}`, `[]`, `[null]`, `["x"]`, `["x","x"]`, `[[]]`, `[1]`, `{"x":1}`,
		`0`, `-0`, `1`, `-1`, `1.5`, `1.0`, `1e2`, `-1e-2`, `9007199254740993`, `9223372036854775807`, `9223372036854775808`, `-9223372036854775808`, `-9223372036854775809`,
		`18446744073709551616`, `1` + strings.Repeat("0", 400), `1e400`, `1e-400`,
	}
	for _, s := range append(texts, g.near(schema)...) {
		b, _ := json.Marshal(s)
		all = append(all, string(b))
	}
	for _, name := range []string{"minimum", "maximum"} {
		if n, ok := schema[name].(json.Number); ok {
			i, _ := strconv.ParseInt(n.String(), 10, 64)
			all = append(all, fmt.Sprint(i), fmt.Sprint(i-1), fmt.Sprint(i+1), `"`+fmt.Sprint(i)+`"`)
		}
	}
	if items, ok := schema["items"].(map[string]any); ok {
		all = append(all, g.lists(schema, g.contract.resolve(items))...)
	}
	return all
}

// texts that are wrong in many places.
var texts = []string{
	"", " ", "x", "X", "1", "-", ".", "é", "日本", "🎁", "a b", " a", "a ", "a\nb", "a\tb", "a\x00b", "\x00", "a\x7fb", "a\u0085b", "a\u00a0b", "\u2028", "\ufeff", "\ufffd",
	"null", "true", "0", "*", "%", "'", `"`, `\`, "<script>", "${x}", "../..", "; DROP TABLE payments", "a@b", "4111111111111111", "https://example.com/", "http://[",
	"2026-11-01T00:00:00Z", "2026-02-30T00:00:00Z", "2999-01-01T00:00:00Z", "192.0.2.0/24", "192.0.2.1/24", "pm_x", "mer_", "EUR", "eur",
}

// near are texts at the edges of a schema: of its lengths, its words, its examples.
func (g *generator) near(schema map[string]any) (all []string) {
	for _, name := range []string{"minLength", "maxLength"} {
		if n, ok := schema[name].(json.Number); ok {
			i, _ := strconv.Atoi(n.String())
			for _, length := range []int{i - 1, i, i + 1} {
				all = append(all, strings.Repeat("x", max(length, 0)), strings.Repeat("ü", max(length, 0)))
			}
		}
	}
	words, _ := schema["enum"].([]any)
	for _, word := range words[:min(len(words), 3)] {
		s := fmt.Sprint(word)
		all = append(all, s, strings.ToUpper(s), strings.ToLower(s), s+" ", s+"\n", s+","+s)
	}
	examples, _ := schema["examples"].([]any)
	for _, example := range examples {
		s := fmt.Sprint(example)
		all = append(all, s, s+"\n", " "+s, s+s, strings.ToUpper(s), s[:len(s)/2])
	}
	for range 3 {
		all = append(all, g.text(g.random.IntN(70)))
	}
	return all
}

// characters of every kind, the usual ones most often.
var characters = []rune(strings.Repeat("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/?#[]@!$&'()*+,;=% \"<>\\^`{|}", 8) +
	"\x00\x01\x08\t\n\v\x1b\x7f\u0085\u009f\u00a0éüßñ日本語🎁\u0301\u200b\u202e\ufeff\ufffd")

func (g *generator) text(length int) string {
	var b strings.Builder
	for range length {
		b.WriteRune(characters[g.random.IntN(len(characters))])
	}
	return b.String()
}

func (g *generator) lists(schema, items map[string]any) (all []string) {
	item := []byte(`"x"`)
	words, _ := items["enum"].([]any)
	examples, _ := items["examples"].([]any)
	switch {
	case len(words) > 0:
		item, _ = json.Marshal(words[0])
		every, _ := json.Marshal(words)
		all = append(all, string(every))
	case len(examples) > 0:
		item, _ = json.Marshal(examples[0])
	default: // the example's first, whatever it is
		var document any
		if json.Unmarshal([]byte(g.base), &document) == nil {
			if found := firstList(document); found != nil {
				item, _ = json.Marshal(found)
			}
		}
	}
	for _, name := range []string{"minItems", "maxItems"} {
		if n, ok := schema[name].(json.Number); ok {
			i, _ := strconv.Atoi(n.String())
			for _, length := range []int{i - 1, i, i + 1} {
				all = append(all, "["+string(bytes.Join(slices.Repeat([][]byte{item}, max(length, 0)), []byte(",")))+"]")
			}
		}
	}
	return append(all, "["+string(item)+",null]", "["+string(item)+",1]", "["+string(item)+","+string(item)+"]")
}

func firstList(v any) any {
	switch v := v.(type) {
	case []any:
		if len(v) > 0 {
			return v[0]
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if found := firstList(v[name]); found != nil {
				return found
			}
		}
	}
	return nil
}

// Queries gives cases of each parameter of the operation's query, one at a time.
func (c *Contract) Queries(o Operation, random *rand.Rand) (all []Case) {
	g := generator{contract: c, base: "null", random: random}
	for i, p := range o.Parameters {
		if p["in"] != "query" {
			continue
		}
		name := fmt.Sprint(p["name"])
		schema := c.resolve(p["schema"])
		values := slices.Concat(texts, g.near(schema), []string{"\xff", "9223372036854775808", "1.5", "-1", "101", "1e2", "+1", strings.Repeat("x", 1001)})
		for _, bound := range []string{"minimum", "maximum"} {
			if n, ok := schema[bound].(json.Number); ok {
				edge, _ := strconv.ParseInt(n.String(), 10, 64)
				values = append(values, fmt.Sprint(edge-1), fmt.Sprint(edge), fmt.Sprint(edge+1))
			}
		}
		if items, ok := schema["items"].(map[string]any); ok {
			words, _ := c.resolve(items)["enum"].([]any)
			for _, word := range words {
				values = append(values, fmt.Sprint(word), fmt.Sprint(word)+",", fmt.Sprint(word)+","+fmt.Sprint(word))
			}
		}
		for _, v := range values {
			all = append(all, Case{
				Name: fmt.Sprintf("%s=%.40q", name, v), At: "/query/" + name, Query: name + "=" + url.QueryEscape(v),
				Allowed: c.conforms(o.pointers[i]+"/schema", schema, v),
			})
		}
		all = append(all, Case{Name: name + " twice", At: "/query/" + name, Query: name + "=1&" + name + "=1"})
	}
	return append(once(all), Case{Name: "an unknown parameter", At: "/query", Query: "surprise=1"},
		Case{Name: "an escape that is none", At: "/query", Query: "%zz=1"}, Case{Name: "a semicolon", At: "/query", Query: "a;b"})
}

// Headers gives cases of each header field of the operation.
func (c *Contract) Headers(o Operation, random *rand.Rand) (all []Case) {
	g := generator{contract: c, base: "null", random: random}
	base := ""
	if media, _, ok := c.at(o.pointer + "/requestBody/content/application~1json"); ok {
		b, _ := json.Marshal(examplesOf(media)[0])
		base = string(b)
	}
	for i, p := range o.Parameters {
		if p["in"] != "header" {
			continue
		}
		name := fmt.Sprint(p["name"])
		for _, v := range slices.Concat(texts, g.near(c.resolve(p["schema"])), []string{
			strings.Repeat("x", 255), strings.Repeat("x", 256), `"x"`, `"`, `"x`, `"x" y`, `"\"`, `""`, "a,b", "wait=-1", "wait=99999999999999999999", `W/"x"`,
		}) {
			v = strings.Trim(v, " \t") // as it arrives
			if v == "" && p["required"] != true || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				continue // no client sends it
			}
			all = append(all, Case{
				Name: fmt.Sprintf("%s: %.40q", name, v), Header: name, Value: v, Base: base,
				Allowed: c.conforms(o.pointers[i]+"/schema", c.resolve(p["schema"]), v),
			})
		}
	}
	return once(all)
}

// once leaves out what another case sends.
func once(cases []Case) []Case {
	seen := map[Case]bool{}
	return slices.DeleteFunc(cases, func(c Case) bool {
		c.Name = ""
		known := seen[c]
		seen[c] = true
		return known
	})
}

// conforms reads a parameter's text as its schema's type says.
func (c *Contract) conforms(pointer string, schema map[string]any, text string) bool {
	if !utf8.ValidString(text) {
		return false
	}
	var v any = text
	switch schema["type"] {
	case "integer":
		if _, err := strconv.ParseInt(text, 10, 64); err == nil && !strings.HasPrefix(text, "+") {
			v = json.Number(text)
		}
	case "boolean":
		if text == "true" || text == "false" {
			v = text == "true"
		}
	case "array":
		list := []any{}
		for item := range strings.SplitSeq(text, ",") {
			list = append(list, item)
		}
		v = list
	}
	return c.Validate(pointer, v) == nil
}
