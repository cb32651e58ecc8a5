package api

import (
	"bytes"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// object is one of JSON with its members in their order, which stays over changes: what was answered before
// a version came is answered to the byte after it.
type object []objectMember

type objectMember struct {
	name  string
	value jsontext.Value
}

// kind is what the member "object" says.
func (o object) kind() (kind string) {
	for _, m := range o {
		if m.name == "object" && m.value.Kind() == '"' {
			_ = json.Unmarshal(m.value, &kind) // a text that was just read
		}
	}
	return kind
}

// rewritten gives the JSON with each object in it, the inner ones first, as by makes it.
func rewritten(text []byte, by func(object) (object, error)) ([]byte, error) {
	return rewrite(jsontext.NewDecoder(bytes.NewReader(text)), by)
}

func rewrite(d *jsontext.Decoder, by func(object) (object, error)) (jsontext.Value, error) {
	kind := d.PeekKind()
	if kind != '{' && kind != '[' {
		v, err := d.ReadValue()
		return v.Clone(), err
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	var o object
	for d.PeekKind() != '}' && d.PeekKind() != ']' {
		var m objectMember
		if kind == '{' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			m.name = strings.Clone(name.String())
		}
		var err error
		if m.value, err = rewrite(d, by); err != nil {
			return nil, err
		}
		o = append(o, m)
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	if kind == '[' {
		return o.written('[', ']')
	}
	o, err := by(o)
	if err != nil {
		return nil, err
	}
	return o.written('{', '}')
}

// written without names is an array.
func (o object) written(begin, end byte) (text jsontext.Value, err error) {
	text = append(text, begin)
	for i, m := range o {
		if i > 0 {
			text = append(text, ',')
		}
		if begin == '{' {
			if text, err = jsontext.AppendQuote(text, m.name); err != nil {
				return nil, err
			}
			text = append(text, ':')
		}
		text = append(text, m.value...)
	}
	return append(text, end), nil
}

// renamed gives a member another name, and its value another form, at its place.
func renamed(from, to string, form func(jsontext.Value) (jsontext.Value, error)) func(object) (object, error) {
	return func(o object) (_ object, err error) {
		if i := slices.IndexFunc(o, func(m objectMember) bool { return m.name == from }); i >= 0 {
			o[i].name = to
			o[i].value, err = form(o[i].value)
		}
		return o, err
	}
}

// codeOf a failure that may be null.
func codeOf(failure jsontext.Value) (jsontext.Value, error) {
	var f *failureResource
	if err := json.Unmarshal(failure, &f); err != nil || f == nil {
		return jsontext.Value("null"), err
	}
	return json.Marshal(f.Code)
}

func failureOf(code jsontext.Value) (jsontext.Value, error) {
	var c *string
	if err := json.Unmarshal(code, &c); err != nil || c == nil {
		return jsontext.Value("null"), err
	}
	return json.Marshal(failureResource{*c})
}

// pinnedToFirst is of a key that was made before there were versions.
func pinnedToFirst(o object) (object, error) {
	return append(o, objectMember{"api_version", jsontext.Value(`"` + firstVersion + `"`)}), nil
}
