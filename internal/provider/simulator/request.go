package simulator

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxBody   = 64 << 10
	maxText   = 255
	maxMethod = 64
	maxAmount = 1_000_000_000_000_000 // minor units; refunds of one capture cannot overflow an int64
)

// problem is a refusal of the request itself; the ledger has no trace of it.
type problem struct {
	status  int
	Object  string `json:"object"` // "error"
	Code    string `json:"code"`
	Message string `json:"message"`
	Pointer string `json:"pointer,omitzero"` // into the body, RFC 6901
}

func (p *problem) Error() string { return p.Message }

func refuse(status int, code, pointer, format string, args ...any) *problem {
	return &problem{status, "error", code, fmt.Sprintf(format, args...), pointer}
}

func invalid(pointer, format string, args ...any) *problem {
	return refuse(http.StatusUnprocessableEntity, "invalid_member", pointer, "The member "+strings.TrimPrefix(pointer, "/")+" "+format+".", args...)
}

// readBody reads one strict JSON object to its end.
func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	t, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset, given := parameters["charset"]
	if err != nil || t != "application/json" || given && !strings.EqualFold(charset, "utf-8") {
		return refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "", "The Content-Type must be application/json.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return refuse(http.StatusRequestEntityTooLarge, "body_too_large", "", "The body must not be larger than %d bytes.", maxBody)
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "body_unreadable", "", "The body could not be read to its end.")
	}
	// null is a value of every Go type to the decoder.
	if value := jsontext.Value(body); value.IsValid() && value.Kind() != '{' {
		return refuse(http.StatusBadRequest, "json_invalid", "", "The body must be a JSON object.")
	}
	return decodeProblem(json.Unmarshal(body, into, json.RejectUnknownMembers(true)))
}

func decodeProblem(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		if errors.Is(e, jsontext.ErrDuplicateName) {
			return refuse(http.StatusBadRequest, "json_duplicate_member", string(e.JSONPointer), "The body has a member twice.")
		}
		return refuse(http.StatusBadRequest, "json_invalid", string(e.JSONPointer), "The body is not valid JSON at byte %d.", e.ByteOffset)
	}
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		if errors.Is(e, json.ErrUnknownName) {
			return refuse(http.StatusBadRequest, "json_unknown_member", string(e.JSONPointer), "The body has a member that is not known here.")
		}
		return refuse(http.StatusBadRequest, "json_wrong_type", string(e.JSONPointer), "A member of the body has the wrong type or is out of range.")
	}
	return refuse(http.StatusBadRequest, "json_invalid", "", "The body is not valid JSON.")
}

func idempotencyKey(r *http.Request) (string, error) {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", refuse(http.StatusBadRequest, "idempotency_key_missing", "", "The header Idempotency-Key is required.")
	}
	if len(values) > 1 || !visible(values[0], maxText) {
		return "", refuse(http.StatusBadRequest, "idempotency_key_invalid", "", "The header Idempotency-Key must be given once, with 1 to %d visible ASCII characters.", maxText)
	}
	return values[0], nil
}

// readRequest reads the body of a money operation.
func readRequest(w http.ResponseWriter, r *http.Request, operationType string) (request, error) {
	out := request{Type: operationType}
	var err error
	switch operationType {
	case authorization:
		var b struct {
			Reference     string `json:"reference"`
			Amount        int64  `json:"amount"`
			Currency      string `json:"currency"`
			PaymentMethod string `json:"payment_method"`
		}
		err = readBody(w, r, &b)
		out.Reference, out.Amount, out.Currency, out.PaymentMethod = b.Reference, b.Amount, b.Currency, b.PaymentMethod
	case capture:
		var b struct {
			Reference     string `json:"reference"`
			Authorization string `json:"authorization"`
			Amount        int64  `json:"amount"`
			Currency      string `json:"currency"`
		}
		err = readBody(w, r, &b)
		out.Reference, out.Parent, out.Amount, out.Currency = b.Reference, b.Authorization, b.Amount, b.Currency
	case void:
		var b struct {
			Reference     string `json:"reference"`
			Authorization string `json:"authorization"`
		}
		err = readBody(w, r, &b)
		out.Reference, out.Parent = b.Reference, b.Authorization
	case refund:
		var b struct {
			Reference string `json:"reference"`
			Capture   string `json:"capture"`
			Amount    int64  `json:"amount"`
			Currency  string `json:"currency"`
		}
		err = readBody(w, r, &b)
		out.Reference, out.Parent, out.Amount, out.Currency = b.Reference, b.Capture, b.Amount, b.Currency
	case refundFailure:
		var b struct {
			Reference string `json:"reference"`
			Refund    string `json:"refund"`
		}
		err = readBody(w, r, &b)
		out.Reference, out.Parent = b.Reference, b.Refund
	case expiry:
		var b struct {
			Reference     string `json:"reference"`
			Authorization string `json:"authorization"`
		}
		err = readBody(w, r, &b)
		out.Reference, out.Parent = b.Reference, b.Authorization
	case dispute:
		var b struct {
			Reference string `json:"reference"`
			Capture   string `json:"capture"`
			Amount    int64  `json:"amount"`
			Currency  string `json:"currency"`
			Reason    string `json:"reason"`
		}
		err = readBody(w, r, &b)
		out.Reference, out.Parent, out.Amount, out.Currency, out.Reason = b.Reference, b.Capture, b.Amount, b.Currency, b.Reason
	case disputeClosure:
		var b struct {
			Reference string `json:"reference"`
			Dispute   string `json:"dispute"`
			Outcome   string `json:"outcome"`
		}
		err = readBody(w, r, &b)
		out.Reference, out.Parent, out.Reason = b.Reference, b.Dispute, b.Outcome
	}
	if err == nil {
		err = out.check()
	}
	return out, err
}

func (r request) check() error {
	parent := map[string]string{
		capture: "/authorization", void: "/authorization", refund: "/capture",
		refundFailure: "/refund", expiry: "/authorization", dispute: "/capture", disputeClosure: "/dispute",
	}[r.Type]
	switch {
	case !visible(r.Reference, maxText):
		return invalid("/reference", "must have 1 to %d visible ASCII characters", maxText)
	case parent != "" && !visible(r.Parent, maxText):
		return invalid(parent, "must be the id of an operation")
	case r.Type == dispute && !visible(r.Reason, maxText):
		return invalid("/reason", "must have 1 to %d visible ASCII characters", maxText)
	case r.Type == disputeClosure && r.Reason != "won" && r.Reason != "lost":
		return invalid("/outcome", "must be won or lost")
	case !amountless(r.Type) && (r.Amount < 1 || r.Amount > maxAmount):
		return invalid("/amount", "must be from 1 to %d minor units", int64(maxAmount))
	case !amountless(r.Type) && !currencyCode(r.Currency):
		return invalid("/currency", "must be a code of three capital letters")
	case r.Type == authorization && !visible(r.PaymentMethod, maxMethod):
		return invalid("/payment_method", "must have 1 to %d visible ASCII characters", maxMethod)
	}
	return nil
}

func visible(s string, limit int) bool {
	return s != "" && len(s) <= limit && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

func currencyCode(s string) bool {
	return len(s) == 3 && strings.IndexFunc(s, func(r rune) bool { return r < 'A' || r > 'Z' }) < 0
}
