package simulator

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	berrors "go.etcd.io/bbolt/errors"
)

// methods of one path; any other is a 405 that names these.
type methods map[string]func(http.ResponseWriter, *http.Request) error

func (s *Simulator) routes() http.Handler {
	mux := http.NewServeMux()
	for path, byMethod := range map[string]methods{
		"/v1/authorizations": {http.MethodPost: s.operate(authorization)},
		"/v1/captures":       {http.MethodPost: s.operate(capture)},
		"/v1/voids":          {http.MethodPost: s.operate(void)},
		"/v1/refunds":        {http.MethodPost: s.operate(refund)},
		"/v1/operations":     {http.MethodGet: s.listOperations},
		"/v1/account":        {http.MethodGet: s.showAccount},
		"/v1/payments":       {http.MethodGet: s.listPayments},

		// What persons do at the bank's dashboard, and what the bank does by itself. Captures,
		// voids and refunds made there are made above, under any key.
		"/v1/refund_failures":  {http.MethodPost: s.act(refundFailure)},
		"/v1/expiries":         {http.MethodPost: s.act(expiry)},
		"/v1/disputes":         {http.MethodPost: s.act(dispute)},
		"/v1/dispute_closures": {http.MethodPost: s.act(disputeClosure)},

		"/v1/faults": {http.MethodPost: s.addFault, http.MethodGet: s.listFaults, http.MethodDelete: s.clearFaults},
		"/healthz":   {http.MethodGet: s.health},
	} {
		mux.Handle(path, s.route(byMethod))
	}
	mux.Handle("/", s.route(nil))
	return mux
}

func (s *Simulator) route(byMethod methods) http.HandlerFunc {
	allowed := make([]string, 0, len(byMethod))
	for m := range byMethod {
		allowed = append(allowed, m)
	}
	slices.Sort(allowed)
	return func(w http.ResponseWriter, r *http.Request) {
		handle, ok := byMethod[r.Method]
		if !ok {
			handle = func(w http.ResponseWriter, _ *http.Request) error {
				if len(allowed) == 0 {
					return refuse(http.StatusNotFound, "not_found", "", "There is nothing at this path.")
				}
				w.Header().Set("Allow", strings.Join(allowed, ", "))
				return refuse(http.StatusMethodNotAllowed, "method_not_allowed", "", "The method must be one of %q.", allowed)
			}
		}
		err := s.checkAccount(r)
		if err == nil {
			err = handle(w, r)
		}
		if err != nil {
			s.fail(w, r, err)
		}
	}
}

// accountHeader names the ledger that a request is meant for.
const accountHeader = "Provider-Account"

// checkAccount refuses a request that is meant for another ledger: here it would be done
// once more, and what it asks for would seem never to have been.
func (s *Simulator) checkAccount(r *http.Request) error {
	if meant := r.Header.Values(accountHeader); len(meant) > 0 && (len(meant) > 1 || meant[0] != s.ledger.account) {
		return refuse(http.StatusMisdirectedRequest, "other_account", "", "This is another ledger than the request is meant for.")
	}
	return nil
}

func (s *Simulator) showAccount(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, struct {
		ID     string `json:"id"`
		Object string `json:"object"`
	}{s.ledger.account, "account"})
	return nil
}

func (s *Simulator) fail(w http.ResponseWriter, r *http.Request, err error) {
	p, ok := errors.AsType[*problem](err)
	switch {
	case ok:
	case errors.Is(err, berrors.ErrDatabaseNotOpen):
		p = refuse(http.StatusServiceUnavailable, "closing", "", "The simulator is shutting down.")
	default:
		s.log.ErrorContext(r.Context(), "simulator request failed", slog.String("path", r.URL.Path), slog.Any("error", err))
		p = refuse(http.StatusInternalServerError, "internal_error", "", "The simulator failed.")
	}
	writeJSON(w, p.status, p)
}

// logged does not log queries, keys or bodies. A held request that ends by
// http.ErrAbortHandler is logged with status 0.
func (s *Simulator) logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := s.clock.Now()
		rec := &recorder{ResponseWriter: w}
		defer func() {
			s.log.DebugContext(r.Context(), "simulator request",
				slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", rec.status),
				slog.String("struck", rec.struck), slog.Duration("took", s.clock.Now().Sub(began)))
		}()
		next.ServeHTTP(rec, r)
	})
}

// recorder keeps for the log what became of a request.
type recorder struct {
	http.ResponseWriter
	status int
	struck string
}

func (rec *recorder) WriteHeader(status int) {
	rec.status = status
	rec.ResponseWriter.WriteHeader(status)
}

func (rec *recorder) Write(b []byte) (int, error) {
	if rec.status == 0 {
		rec.status = http.StatusOK
	}
	return rec.ResponseWriter.Write(b)
}

func (rec *recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

func (s *Simulator) health(w http.ResponseWriter, _ *http.Request) error {
	if _, err := s.ledger.lastSequence(); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Status string `json:"status"`
	}{"ok"})
	return nil
}

// writeJSON has nobody to tell when the client is gone.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // every v is a struct of this package
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
