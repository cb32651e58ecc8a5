package stripetest

import (
	"io"
	"net/http"
	"path"
	"slices"
)

// Fault is what befalls requests. Empty Method and Path match all.
type Fault struct {
	Method string
	Path   string // a pattern of path.Match, such as /v1/payment_intents/*/capture
	// Applied carries the request out nevertheless.
	Applied bool
	// Status and Body are the answer; 0 is no answer at all.
	Status      int
	ContentType string // application/json by default
	Body        string // an error of Stripe's own for the status by default
	// After is how many requests are let through before the first is struck.
	After int
	// Times bounds how many requests are struck; 0 is all, until the fault is healed.
	Times int
}

type broken struct {
	Fault
	passed, struck int
}

// LostAnswer is one request that is carried out and not answered.
func LostAnswer(path string) Fault {
	return Fault{Method: http.MethodPost, Path: path, Applied: true, Times: 1}
}

// Break adds a fault; heal removes it. The newest that matches counts.
func (s *Server) Break(f Fault) (heal func()) {
	if _, err := path.Match(f.Path, ""); err != nil {
		s.t.Fatalf("a fault's path: %v", err)
	}
	b := &broken{Fault: f}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breaks = append(s.breaks, b)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.breaks = slices.DeleteFunc(s.breaks, func(other *broken) bool { return other == b })
	}
}

// struck is the fault that befalls r, or nil.
func (s *Server) struck(r *http.Request) *broken {
	for _, b := range slices.Backward(s.breaks) {
		here, _ := path.Match(b.Path, r.URL.Path)
		if (b.Method == "" || b.Method == r.Method) && (b.Path == "" || here) && (b.Times == 0 || b.struck < b.Times) {
			if b.passed < b.After {
				b.passed++
				return nil
			}
			b.struck++
			return b
		}
	}
	return nil
}

func (b *broken) write(w http.ResponseWriter) {
	kind, body := b.ContentType, b.Body
	if kind == "" {
		kind = "application/json"
	}
	if body == "" {
		errorType := "invalid_request_error"
		if b.Status >= http.StatusInternalServerError {
			errorType = "api_error"
		}
		body = `{"error":{"type":"` + errorType + `","message":"No."}}`
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(b.Status)
	_, _ = io.WriteString(w, body)
}
