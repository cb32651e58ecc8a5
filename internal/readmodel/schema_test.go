package readmodel

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"payments/internal/inbox"
	"payments/internal/payment"
)

const schemas = "../../docs/events"

func schema(t *testing.T, kind payment.EventType) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile(filepath.Join(schemas, string(kind)+".v1.json"))
	if err != nil {
		t.Fatalf("schema of %s: %v", kind, err)
	}
	return s
}

func document(t *testing.T, kind payment.EventType) map[string]any {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(schemas, string(kind)+".v1.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return doc
}

func TestTheEventsOfTheTestsAreValidByTheirSchemas(t *testing.T) {
	w := newWorld(t)
	review := w.order(w.merchant())
	messages := append(w.order(w.merchant()).succeeded(), w.order(w.merchant()).failed()...)
	messages = append(messages, review.placed(), review.event(payment.EventReviewRequired, payment.StatusRequiresReview, nil))
	for _, m := range messages {
		kind := payment.EventType(m.Headers["ce_type"])
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(m.Value))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema(t, kind).Validate(value); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	w.apply(messages...)
	same(t, "dead letters", w.deadLetters(), []string{})
}

func TestSchemasRefuseWhatIsNoEvent(t *testing.T) {
	w := newWorld(t)
	good := w.order(w.merchant()).placed()
	for name, spoil := range map[string][2]string{
		"float amount": {`"amount":4998`, `"amount":49.98`},
		"no customer":  {`"customer"`, `"customers"`},
		"wrong id":     {`"ord_`, `"order_`},
		"no lines":     {`"lines":[`, `"lines":[],"x":[`},
		"other status": {`"processing"`, `"succeeded"`},
	} {
		spoiled := bytes.Replace(good.Value, []byte(spoil[0]), []byte(spoil[1]), 1)
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(spoiled))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if schema(t, payment.EventOrderPlaced).Validate(value) == nil {
			t.Errorf("%s is valid", name)
		}
	}
}

// Each type has one schema, each schema is of a type, and the README lists both.
func TestEachTypeHasItsSchema(t *testing.T) {
	files, err := filepath.Glob(schemas + "/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(payment.EventTypes) {
		t.Errorf("%d schemas for %d types", len(files), len(payment.EventTypes))
	}
	readme, err := os.ReadFile(schemas + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range payment.EventTypes {
		schema(t, kind)
		if title := document(t, kind)["title"]; title != string(kind) {
			t.Errorf("the schema of %s has the title %v", kind, title)
		}
		if !strings.Contains(string(readme), "]("+string(kind)+".v1.json)") {
			t.Errorf("the README does not list %s", kind)
		}
	}
}

// A schema describes members of EventData with the type they have there, all of
// them together describe every member, and none forbids additional ones.
func TestSchemasAgreeWithEventData(t *testing.T) {
	described := map[string]bool{}
	for _, kind := range payment.EventTypes {
		compare(t, string(kind), document(t, kind), reflect.TypeFor[payment.EventData](), described)
	}
	var all func(at string, of reflect.Type)
	all = func(at string, of reflect.Type) {
		for name, field := range members(of) {
			if !described[at+"/"+name] {
				t.Errorf("no schema describes %s", at+"/"+name)
			}
			all(at+"/"+name, element(field.Type))
		}
	}
	all("", reflect.TypeFor[payment.EventData]())
}

func compare(t *testing.T, kind string, doc map[string]any, of reflect.Type, described map[string]bool) {
	t.Helper()
	var walk func(at string, doc map[string]any, of reflect.Type)
	walk = func(at string, doc map[string]any, of reflect.Type) {
		if _, ok := doc["additionalProperties"]; ok {
			t.Errorf("%s%s says something about additional members", kind, at)
		}
		properties, _ := doc["properties"].(map[string]any)
		fields := members(of)
		required := map[string]bool{}
		names, _ := doc["required"].([]any)
		for _, name := range names {
			required[name.(string)] = true
		}
		for name, field := range fields {
			_, ok := properties[name]
			if always := !strings.Contains(field.Tag.Get("json"), ",omit"); always && (!ok || !required[name]) {
				t.Errorf("%s%s/%s is always there, and the schema does not require it", kind, at, name)
			}
		}
		for name, p := range properties {
			property, where := p.(map[string]any), at+"/"+name
			field, ok := fields[name]
			if !ok {
				t.Errorf("%s%s is no member of EventData", kind, where)
				continue
			}
			described[where] = true
			if is, want := property["type"], jsonType(field.Type); is != nil && is != want {
				t.Errorf("%s%s is %v, EventData has %s", kind, where, is, want)
			}
			if items, ok := property["items"].(map[string]any); ok {
				property = items
			}
			walk(where, property, element(field.Type))
		}
	}
	walk("", doc, of)
}

func jsonType(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[time.Time](), t == reflect.TypeFor[[]byte](), t.Kind() == reflect.String:
		return "string"
	case t.Kind() == reflect.Slice:
		return "array"
	case t.Kind() == reflect.Struct:
		return "object"
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		return "integer"
	}
	return t.String()
}

func element(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t
}

func members(t reflect.Type) map[string]reflect.StructField {
	fields := map[string]reflect.StructField{}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() {
		return fields
	}
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		fields[name] = field
	}
	return fields
}

var _ inbox.Handler = NewProjector().Handle
