// Package contracttest holds answers of the service against its OpenAPI document,
// in tests. The schemas of OpenAPI 3.1 are JSON Schema 2020-12, so the validator is
// the one that the event schemas are held against. It imports nothing of the project.
package contracttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// Contract is safe for concurrent use.
type Contract struct {
	document map[string]any
	mu       sync.Mutex
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema // by pointer

	read       sync.Once
	operations []Operation
}

const location = "openapi.json"

// Versions are contracts by the version that each is of.
type Versions map[string]*Contract

// NewVersions reads the document of each version.
func NewVersions(documents ...[]byte) (Versions, error) {
	all := Versions{}
	for _, d := range documents {
		c, err := New(d)
		if err != nil {
			return nil, err
		}
		all[fmt.Sprint(c.info()["version"])] = c
	}
	return all, nil
}

// Check holds an answer against the document of the version that it says it is made in.
func (v Versions) Check(method, path string, status int, header http.Header, body []byte) error {
	c, ok := v[header.Get("Payments-Version")]
	if !ok {
		return fmt.Errorf("%s %s answered %d in the version %q, which has no document", method, path, status, header.Get("Payments-Version"))
	}
	return c.Check(method, path, status, header, body)
}

func (c *Contract) info() map[string]any {
	info, _ := c.document["info"].(map[string]any)
	return info
}

// New reads the document. Objects that are shown are closed, so that a member that
// the document does not have is found, although clients have to expect new ones.
func New(document []byte) (*Contract, error) {
	var fromYAML any
	if err := yaml.Unmarshal(document, &fromYAML); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	asJSON, err := json.Marshal(fromYAML)
	if err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	root, ok := parsed.(map[string]any)
	if !ok || root["openapi"] == nil {
		return nil, errors.New("this is no OpenAPI document")
	}
	closeObjects(root)
	c := &Contract{document: root, compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	c.compiler.AssertFormat()
	return c, c.compiler.AddResource(location, root)
}

func closeObjects(v any) {
	switch v := v.(type) {
	case map[string]any:
		_, properties := v["properties"]
		_, decided := v["additionalProperties"]
		// Beside others in an allOf it says something of a few members only.
		if v["type"] == "object" && properties && !decided && v["required"] != nil && v["allOf"] == nil && !partial(v) {
			v["additionalProperties"] = false
		}
		for _, member := range v {
			closeObjects(member)
		}
	case []any:
		for _, item := range v {
			closeObjects(item)
		}
	}
}

// partial is a schema that narrows the code of a problem.
func partial(schema map[string]any) bool {
	properties, _ := schema["properties"].(map[string]any)
	code, _ := properties["code"].(map[string]any)
	return code["enum"] != nil && len(properties) <= 2
}

// Operation is one of the document's.
type Operation struct {
	Method, Path string
	pointer      string
	Definition   map[string]any
	Parameters   []map[string]any // the path's, too, with references followed
	pointers     []string         // of each parameter
}

var methods = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}

// Operations of the document, in the order of their paths. They are read once: each answer that
// a test gets looks for its operation.
func (c *Contract) Operations() []Operation {
	c.read.Do(func() { c.operations = c.readOperations() })
	return c.operations
}

func (c *Contract) readOperations() []Operation {
	var all []Operation
	paths, _ := c.document["paths"].(map[string]any)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item, _ := paths[path].(map[string]any)
		for _, method := range methods {
			definition, ok := item[method].(map[string]any)
			if !ok {
				continue
			}
			o := Operation{Method: strings.ToUpper(method), Path: path, pointer: "/paths/" + token(path) + "/" + method, Definition: definition}
			for _, list := range []struct {
				of    string
				items any
			}{{"/paths/" + token(path), item["parameters"]}, {o.pointer, definition["parameters"]}} {
				items, _ := list.items.([]any)
				for i, p := range items {
					pointer := list.of + "/parameters/" + strconv.Itoa(i)
					if m, _ := p.(map[string]any); m["$ref"] != nil {
						pointer = strings.TrimPrefix(fmt.Sprint(m["$ref"]), "#")
					}
					o.Parameters, o.pointers = append(o.Parameters, c.resolve(p)), append(o.pointers, pointer)
				}
			}
			all = append(all, o)
		}
	}
	return all
}

// operation that a path of a request belongs to: the one with the fewest templates.
func (c *Contract) operation(method, path string) (Operation, bool) {
	var found Operation
	best := -1
	for _, o := range c.Operations() {
		if o.Method != method {
			continue
		}
		if n := literals(o.Path, path); n > best {
			found, best = o, n
		}
	}
	return found, best >= 0
}

// literals counts the segments that are the same; -1 when the path does not fit.
func literals(template, path string) (n int) {
	want, have := strings.Split(template, "/"), strings.Split(path, "/")
	if len(want) != len(have) {
		return -1
	}
	for i := range want {
		switch {
		case want[i] == have[i]:
			n++
		case !strings.HasPrefix(want[i], "{"):
			return -1
		}
	}
	return n
}

// The escapes of a JSON pointer (RFC 6901), and of a template in a URI.
var (
	escapePointer   = strings.NewReplacer("~", "~0", "/", "~1")
	unescapePointer = strings.NewReplacer("~1", "/", "~0", "~")
	escapeTemplate  = strings.NewReplacer("{", "%7B", "}", "%7D")
)

func token(s string) string { return escapePointer.Replace(s) }

// resolve follows references within the document.
func (c *Contract) resolve(v any) map[string]any {
	m, _ := v.(map[string]any)
	if ref, ok := m["$ref"].(string); ok {
		v, _, _ := c.at(strings.TrimPrefix(ref, "#"))
		return v
	}
	return m
}

// at follows references on the way, and gives the pointer it came to.
func (c *Contract) at(pointer string) (value map[string]any, canonical string, ok bool) {
	value, canonical = c.document, ""
	for name := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		next, isMap := value[unescapePointer.Replace(name)].(map[string]any)
		if !isMap {
			return nil, "", false
		}
		value, canonical = next, canonical+"/"+name
		for {
			ref, isRef := value["$ref"].(string)
			if !isRef {
				break
			}
			if value, canonical, ok = c.at(strings.TrimPrefix(ref, "#")); !ok {
				return nil, "", false
			}
		}
	}
	return value, canonical, true
}

// Validate holds a value, as jsonschema.UnmarshalJSON reads it, against the schema
// at the pointer.
func (c *Contract) Validate(pointer string, value any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.schemas[pointer]
	if s == nil {
		var err error
		if s, err = c.compiler.Compile(location + "#" + escapeTemplate.Replace(pointer)); err != nil {
			return fmt.Errorf("the schema at %s: %w", pointer, err)
		}
		c.schemas[pointer] = s
	}
	return s.Validate(value)
}

// everywhere are header fields that say nothing of the operation.
var everywhere = map[string]bool{
	"Content-Type": true, "Content-Length": true, "Date": true, "Cache-Control": true, "Connection": true, "X-Content-Type-Options": true,
	"Content-Security-Policy": true, "Cross-Origin-Resource-Policy": true, "Referrer-Policy": true, "Strict-Transport-Security": true,
	"Vary": true, "Content-Encoding": true,
	"Deprecation": true, "Sunset": true, "Link": true, // checkDeprecation holds them
}

// Check holds an answer against what the document says of its operation, status,
// content type, header fields and body. Paths and methods that the document does
// not have may only be refused.
func (c *Contract) Check(method, path string, status int, header http.Header, body []byte) error {
	what := fmt.Sprintf("%s %s answered %d", method, path, status)
	lookup := method
	if method == http.MethodHead {
		lookup = http.MethodGet
	}
	o, ok := c.operation(lookup, path)
	if !ok {
		if status != http.StatusNotFound && status != http.StatusMethodNotAllowed && status != http.StatusTooManyRequests {
			return fmt.Errorf("%s: the document has no such operation", what)
		}
		if method == http.MethodHead {
			return nil
		}
		return c.checkBody(what, "/components/schemas/Problem", body)
	}
	if err := c.checkDeprecation(o, status, header); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	response, pointer, ok := c.at(o.pointer + "/responses/" + strconv.Itoa(status))
	if !ok {
		return fmt.Errorf("%s: the document does not have this status of %s %s", what, o.Method, o.Path)
	}
	if err := c.checkHeader(what, pointer, response, header); err != nil {
		return err
	}
	content, _ := response["content"].(map[string]any)
	mediaType, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	if method == http.MethodHead {
		return nil
	}
	if len(content) == 0 {
		if len(body) > 0 {
			return fmt.Errorf("%s: the document has no body here", what)
		}
		return nil
	}
	if content[mediaType] == nil {
		return fmt.Errorf("%s: the document does not have the content type %q here", what, mediaType)
	}
	if !strings.HasSuffix(mediaType, "json") {
		return nil
	}
	return c.checkBody(what, pointer+"/content/"+token(mediaType)+"/schema", body)
}

// checkDeprecation: an answer says what the document does. A refusal may come before it is known who asks, and for what.
func (c *Contract) checkDeprecation(o Operation, status int, header http.Header) error {
	promised := c.info()["x-deprecated-at"] != nil || o.Definition["deprecated"] == true
	_, told := header["Deprecation"]
	_, ends := header["Sunset"]
	_, linked := header["Link"]
	if told != linked || ends && !told || told && !promised || promised && !told && status < 400 {
		return fmt.Errorf("deprecated in the document: %v, in the answer: %v, with a sunset: %v, with a link: %v", promised, told, ends, linked)
	}
	return nil
}

func (c *Contract) checkBody(what, pointer string, body []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = c.Validate(pointer, v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w in %s", what, err, body)
	}
	return nil
}

func (c *Contract) checkHeader(what, pointer string, response map[string]any, header http.Header) error {
	documented, _ := response["headers"].(map[string]any)
	known := map[string]bool{}
	for name := range documented {
		known[http.CanonicalHeaderKey(name)] = true
	}
	for name := range header {
		if !known[name] && !everywhere[name] {
			return fmt.Errorf("%s: the document does not have the header %s here", what, name)
		}
	}
	for name := range documented {
		definition, at, ok := c.at(pointer + "/headers/" + name)
		if !ok {
			return fmt.Errorf("%s: the document's header %s leads nowhere", what, name)
		}
		values := header.Values(name)
		switch {
		case len(values) == 0 && definition["required"] == true:
			return fmt.Errorf("%s: the header %s is missing", what, name)
		case len(values) > 1:
			return fmt.Errorf("%s: the header %s is there %d times", what, name, len(values))
		case len(values) == 1:
			var v any = values[0]
			if schema := c.resolve(definition["schema"]); schema["type"] == "integer" {
				v = json.Number(values[0])
			}
			if err := c.Validate(at+"/schema", v); err != nil {
				return fmt.Errorf("%s: the header %s: %w", what, name, err)
			}
		}
	}
	return nil
}

// Enum gives the words that the schema at the pointer allows.
func (c *Contract) Enum(pointer string) (words []string) {
	schema, _, _ := c.at(pointer)
	list, _ := schema["enum"].([]any)
	for _, word := range list {
		words = append(words, fmt.Sprint(word))
	}
	return words
}

// Example is the value of the example at the pointer.
func (c *Contract) Example(pointer string) (value any, ok bool) {
	example, _, ok := c.at(pointer)
	if !ok {
		return nil, false
	}
	value, ok = example["value"]
	return value, ok
}
