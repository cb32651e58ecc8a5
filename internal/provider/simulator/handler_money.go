package simulator

import (
	"context"
	"log/slog"
	"net/http"
)

// operate answers a money operation. A fault goes before the payment method's
// own strike, which then still awaits the operation's next request.
func (s *Simulator) operate(operationType string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		struck := s.faults.next(operationType)
		if err := s.strikeAtOnce(w, operationType, struck); err != nil {
			return err
		}
		key, err := idempotencyKey(r)
		if err != nil {
			return err
		}
		req, err := readRequest(w, r, operationType)
		if err != nil {
			return err
		}
		if struck.kind == slow {
			s.note(w, operationType, struck)
			s.takeLong(struck)
			struck = strike{}
		}
		if struck.kind != "" {
			return s.carryOut(w, r, key, req, struck)
		}
		v, err := s.submit(key, req, true)
		if err != nil {
			return err
		}
		if v.strike.kind != "" {
			return s.carryOut(w, r, key, req, v.strike)
		}
		return answer(w, v)
	}
}

// act writes down what happens at the bank without a request of the service. No
// fault strikes it.
func (s *Simulator) act(operationType string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		key, err := idempotencyKey(r)
		if err != nil {
			return err
		}
		req, err := readRequest(w, r, operationType)
		if err != nil {
			return err
		}
		v, err := s.submit(key, req, false)
		if err != nil {
			return err
		}
		return answer(w, v)
	}
}

// strikeAtOnce does what needs not even read the request.
func (s *Simulator) strikeAtOnce(w http.ResponseWriter, operationType string, struck strike) error {
	switch struck.kind {
	case outage:
		s.note(w, operationType, struck)
		panic(http.ErrAbortHandler)
	case serverError:
		s.note(w, operationType, struck)
		return errStruck()
	}
	return nil
}

func errStruck() error {
	return refuse(http.StatusInternalServerError, "provider_error", "", "The provider failed.")
}

// carryOut lets a strike befall req, which is not applied yet unless by an
// earlier request of its key.
func (s *Simulator) carryOut(w http.ResponseWriter, r *http.Request, key string, req request, struck strike) error {
	s.note(w, req.Type, struck)
	switch struck.kind {
	case serverError:
		return errStruck()
	case slow:
		s.takeLong(struck)
		v, err := s.submit(key, req, false)
		if err != nil {
			return err
		}
		return answer(w, v)
	case timeoutApplied:
		if _, err := s.submit(key, req, false); err != nil {
			return err
		}
	case lateApplied:
		s.delays.later(struck.latency, func() {
			if _, err := s.submit(key, req, false); err != nil {
				s.log.ErrorContext(context.WithoutCancel(r.Context()), "late application failed", slog.String("operation", req.Type), slog.Any("error", err))
			}
		})
	}
	s.hold(r.Context())
	return nil
}

// submit counts what was written; a replay is not.
func (s *Simulator) submit(key string, req request, byMethod bool) (verdict, error) {
	v, err := s.ledger.submit(key, req, byMethod)
	if err == nil && v.operation.ID != "" && !v.replayed {
		s.operations.WithLabelValues(v.operation.Type, v.operation.Status).Inc()
		s.notifier.wake()
	}
	return v, err
}

// takeLong goes on when the client has gone, as a bank does. It does not return
// when the simulator closes meanwhile.
func (s *Simulator) takeLong(struck strike) {
	//nolint:forbidigo // no caller's context: the client may go, the work goes on
	if !s.delays.wait(context.Background(), struck.latency) {
		panic(http.ErrAbortHandler)
	}
}

// hold keeps the connection open without an answer until the client goes, the
// simulator closes or holdLimit has passed, and ends it.
func (s *Simulator) hold(ctx context.Context) {
	s.delays.wait(ctx, holdLimit)
	panic(http.ErrAbortHandler)
}

func (s *Simulator) note(w http.ResponseWriter, operationType string, struck strike) {
	s.strikes.WithLabelValues(operationType, struck.kind).Inc()
	if rec, ok := w.(*recorder); ok {
		rec.struck = struck.kind
	}
}

func answer(w http.ResponseWriter, v verdict) error {
	if v.conflict {
		return refuse(http.StatusUnprocessableEntity, "idempotency_key_reused", "", "The Idempotency-Key was used for another request.")
	}
	if v.replayed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	status := http.StatusCreated
	if v.operation.Status == declined {
		status = http.StatusPaymentRequired
	}
	writeJSON(w, status, v.operation)
	return nil
}
