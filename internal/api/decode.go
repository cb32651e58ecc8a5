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

// body reads the whole body of a JSON request.
func (c *call) body() ([]byte, error) {
	mediaType, params, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	charset, has := params["charset"]
	if err != nil || mediaType != "application/json" || has && !strings.EqualFold(charset, "utf-8") ||
		len(c.r.Header.Values("Content-Type")) != 1 || c.r.Header.Get("Content-Encoding") != "" {
		return nil, payment.Errorf(codeContentType, "The body has to be application/json in UTF-8, not compressed.")
	}
	b, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, payment.Errorf(codeBodyTooLarge, "The body has more than %d bytes.", maxBody)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, payment.Errorf(codeBodyTimeout, "The body did not come in time.")
	case err != nil:
		return nil, malformed("", "ended before the length that the request announced").Because(err)
	}
	_ = http.NewResponseController(c.w).SetReadDeadline(time.Time{})
	return b, nil
}

// decode reads the body, which a request of optional members need not have.
func (c *call) decode(v any) error {
	if c.r.Body == http.NoBody || c.r.ContentLength == 0 {
		return decode([]byte("{}"), v)
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	return decode(body, v)
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
			return invalid(pointer(semantic.JSONPointer), "member_unknown", "is not a member that is known here")
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
