package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"payments/internal/payment"
)

const maxBody = 64 << 10 // bytes

// body reads the whole body of a JSON request, which has to have one.
func (c *call) body() ([]byte, error) { return c.bodyWithin(maxBody) }

func (c *call) bodyWithin(limit int64) ([]byte, error) {
	b, err := c.read(limit)
	if err == nil && len(b) == 0 {
		return nil, malformed("", "is empty; this request needs a JSON document")
	}
	return b, err
}

// read gives the body, which may be empty, however the request says so: by Content-Length: 0, by
// chunks of which the first is the last, or by an end of the HTTP/2 stream after the header. An
// empty body has no content type.
func (c *call) read(limit int64) ([]byte, error) {
	body := http.MaxBytesReader(c.w, c.r.Body, limit)
	refusal := c.contentType()
	if refusal != nil { // the first byte makes it a body
		if c.r.ContentLength > 0 {
			return nil, refusal
		}
		body = http.MaxBytesReader(c.w, c.r.Body, 0)
	}
	b, err := io.ReadAll(body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge) && refusal != nil:
		return nil, refusal
	case errors.As(err, &tooLarge):
		return nil, payment.Errorf(codeBodyTooLarge, "The body has more than %d bytes.", limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, payment.Errorf(codeBodyTimeout, "The body did not come in time.")
	case err != nil:
		return nil, malformed("", "ended before the length that the request announced").Because(err)
	}
	_ = http.NewResponseController(c.w).SetReadDeadline(time.Time{})
	return b, nil
}

// contentType is the refusal of a body that is not JSON by its header fields, or nil.
func (c *call) contentType() error {
	const refused = "The body has to be application/json in UTF-8, not compressed."
	values := c.r.Header.Values("Content-Type")
	switch {
	case c.r.Header.Get("Content-Encoding") != "":
		return payment.Errorf(codeContentType, refused+" The Content-Encoding header has to be left out.")
	case len(values) == 0:
		return payment.Errorf(codeContentType, refused+" The Content-Type header is missing.")
	case len(values) > 1:
		return payment.Errorf(codeContentType, refused+" There is more than one Content-Type header.")
	}
	mediaType, params, err := mime.ParseMediaType(values[0])
	charset, has := params["charset"]
	switch {
	case err != nil || mediaType != "application/json":
		return payment.Errorf(codeContentType, refused+" The Content-Type header names another type.")
	case has && !strings.EqualFold(charset, "utf-8"):
		return payment.Errorf(codeContentType, refused+" The Content-Type header names another charset.")
	}
	return nil
}

// decode reads the body, which a request of optional members need not have.
func (c *call) decode(v any) error {
	body, err := c.optional()
	if err != nil {
		return err
	}
	return decode(body, v)
}

// optional is the body, or {} where there is none.
func (c *call) optional() ([]byte, error) {
	b, err := c.read(maxBody)
	if err == nil && len(b) == 0 {
		return []byte("{}"), nil
	}
	return b, err
}

// decode is strict: members that v does not have, members given twice, other
// types, and anything behind the document are refused. v has pointers, so that
// what is missing differs from what is zero.
func decode(body []byte, v any) error {
	if !utf8.Valid(body) {
		// The decoder says where, but it may not come so far.
		if syntactic, ok := errors.AsType[*jsontext.SyntacticError](json.Unmarshal(body, v)); ok {
			return malformed(pointer(syntactic.JSONPointer), "must be valid UTF-8")
		}
		return malformed("", "must be valid UTF-8")
	}
	err := json.Unmarshal(body, v, json.RejectUnknownMembers(true))
	if err == nil {
		if jsontext.Value(body).Kind() == 'n' {
			return wrongType("", reflect.TypeOf(v).Elem())
		}
		return noNull(body)
	}
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
		if errors.Is(semantic, json.ErrUnknownName) {
			return invalid(pointer(semantic.JSONPointer), "member_unknown", "is not a member that is known here"+membersOf(semantic.GoType))
		}
		return wrongType(pointer(semantic.JSONPointer), semantic.GoType)
	}
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		at := pointer(syntactic.JSONPointer)
		switch {
		case errors.Is(err, jsontext.ErrDuplicateName):
			return invalid(at, "member_duplicate", "must be given once")
		case errors.Is(err, io.ErrUnexpectedEOF):
			return malformed(at, "ends too early")
		}
		return malformed(at, "is not JSON")
	}
	return fmt.Errorf("decode body: %w", err)
}

// noNull refuses null in the place of a member: it would be as if it were missing,
// which a client that writes it may not mean. Most bodies are not read again for it.
func noNull(body []byte) error {
	if !bytes.Contains(body, []byte("null")) {
		return nil
	}
	d := jsontext.NewDecoder(bytes.NewReader(body))
	for {
		token, err := d.ReadToken()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("decode body: %w", err)
		case token.Kind() == 'n':
			return invalid(pointer(d.StackPointer()), "null_invalid", "must not be null; what is not meant is left out")
		}
	}
}

// membersOf lists the members of an object that a request has, for the error of another one.
func membersOf(t reflect.Type) string {
	for t != nil && (t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice) {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return ""
	}
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ", since none is"
	}
	return ": there are " + strings.Join(names, ", ")
}

func wrongType(at string, t reflect.Type) error {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	want := "of another type"
	if t != nil {
		switch t.Kind() { //nolint:exhaustive // requests are made of these
		case reflect.Int64:
			return invalid(at, "integer_invalid", "must be an integer, without fraction or exponent, that fits in 64 bits")
		case reflect.String:
			want = "a string"
		case reflect.Struct:
			want = "an object"
		case reflect.Slice:
			want = "an array"
		}
	}
	return invalid(at, "type_invalid", "must be "+want)
}

func invalid(at, code, message string) *payment.Error {
	return &payment.Error{
		Code: payment.CodeInvalid, Message: "The body is not valid.",
		Fields: []payment.FieldError{{Pointer: at, Code: code, Message: message}},
	}
}

func malformed(at, message string) *payment.Error {
	return &payment.Error{
		Code: codeJSONInvalid, Message: "The body is not a JSON document.",
		Fields: []payment.FieldError{{Pointer: at, Code: string(codeJSONInvalid), Message: message}},
	}
}

// pointer ends before a name that could be data in the place of a name (a card
// number, a text): an answer does not repeat what was submitted.
func pointer(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		if !plainName(token) {
			break
		}
		b.WriteString("/" + token)
	}
	return b.String()
}

func plainName(token string) bool {
	if token == "" || len(token) > 64 {
		return false
	}
	digits := 0
	for _, c := range []byte(token) {
		digit := c >= '0' && c <= '9'
		if digit {
			digits++
		}
		if !digit && c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return digits <= 5 // an index of an array in 64 KiB; more are a number, or a token
}

// allowedOf lists the allowed values of a member, for its error.
func allowedOf[S ~string](all []S) string {
	texts := make([]string, len(all))
	for i, s := range all {
		texts[i] = string(s)
	}
	return strings.Join(texts, ", ")
}

// fields collects what is refused in a decoded body.
type fields []payment.FieldError

// take is the zero value, and one more error, when the member is missing.
func take[T any](f *fields, p *T, at string) (v T) {
	if p == nil {
		*f = append(*f, payment.FieldError{Pointer: at, Code: "missing", Message: "is required"})
		return v
	}
	return *p
}

// text refuses a member that is given and is no line of text.
func (f *fields) text(p *string, at string, limit int) {
	if p == nil {
		return
	}
	if err := payment.CheckText(*p, limit); err != nil {
		*f = append(*f, payment.FieldError{Pointer: at, Code: "text_invalid", Message: err.Error()})
	}
}

// reason refuses an operator's words that are given and say nothing.
func (f *fields) reason(p *string, at string) {
	if p == nil {
		return
	}
	if err := payment.CheckReason(*p); err != nil {
		*f = append(*f, payment.FieldError{Pointer: at, Code: "text_invalid", Message: err.Error()})
	}
}

// holder refuses what is given and cannot name who holds a key.
func (f *fields) holder(p *string, at string) {
	if p == nil {
		return
	}
	if err := payment.CheckHolder(*p); err != nil {
		*f = append(*f, payment.FieldError{Pointer: at, Code: "text_invalid", Message: err.Error()})
	}
}

// merge adds the domain's verdict, less what follows from a missing member.
func (f *fields) merge(err error) error {
	if err == nil {
		return nil
	}
	refusal, ok := errors.AsType[*payment.Error](err)
	if !ok || refusal.Code != payment.CodeInvalid {
		return err
	}
	own := *f
	for _, field := range refusal.Fields {
		covered := false
		for _, o := range own {
			covered = covered || field.Pointer == o.Pointer || strings.HasPrefix(field.Pointer, o.Pointer+"/")
		}
		if !covered {
			*f = append(*f, field)
		}
	}
	return nil
}

func (f *fields) err() error {
	if len(*f) == 0 {
		return nil
	}
	return &payment.Error{Code: payment.CodeInvalid, Message: "The body is not valid.", Fields: *f}
}
