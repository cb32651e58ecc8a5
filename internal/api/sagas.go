package api

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"payments/internal/access"
	"payments/internal/order"
	"payments/internal/payment"
)

// shortDuration is one number with its unit; what else time.ParseDuration takes is not promised.
var shortDuration = regexp.MustCompile(`^[0-9]{1,6}(ms|s|m|h)$`)

func sagaParameters() []string {
	return []string{"state", "definition", "older_than", "paused", "payment", "order", "reference", "limit", "cursor"}
}

type sagaResource struct {
	ID         string             `json:"id"`
	Object     string             `json:"object"`
	Merchant   string             `json:"merchant"`
	Definition string             `json:"definition"`
	Version    int                `json:"version"`
	Subject    string             `json:"subject"` // the order, refund or payment that it moves
	Payment    *string            `json:"payment"` // that it is about
	State      string             `json:"state"`
	Step       string             `json:"step"`
	StepSince  time.Time          `json:"step_since"`
	Tries      int                `json:"tries"`
	Resolving  bool               `json:"resolving"`
	Awaiting   bool               `json:"awaiting"`
	Rejection  *rejectionResource `json:"rejection"`
	Parked     *rejectionResource `json:"parked"`
	Deadline   *time.Time         `json:"deadline"`
	PausedAt   *time.Time         `json:"paused_at"`
	Owner      *string            `json:"owner"`
	Epoch      int64              `json:"epoch"`
	DueAt      *time.Time         `json:"due_at"`
	CreatedAt  time.Time          `json:"created_at"`
	Trace      *string            `json:"traceparent"`
	WaitsFor   *string            `json:"waits_for"` // what its next call lacks

	Attempts []sagaAttemptResource `json:"attempts,omitzero"` // of one saga only
	Actions  []actResource         `json:"actions,omitzero"`
}

type rejectionResource struct {
	Step   string `json:"step"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

type sagaAttemptResource struct {
	Number         int        `json:"number"`
	Step           string     `json:"step"`
	Call           string     `json:"call"`
	Epoch          int64      `json:"epoch"`
	Owner          string     `json:"owner"`
	IdempotencyKey *string    `json:"idempotency_key"`
	RequestDigest  *string    `json:"request_digest"` // SHA-256 over key and data, in hexadecimal
	StartedAt      time.Time  `json:"started_at"`
	FinishedAt     *time.Time `json:"finished_at"`
	Outcome        *string    `json:"outcome"` // null while the call may be under way
	Code           *string    `json:"code"`
	Detail         *string    `json:"detail"`
	Reference      *string    `json:"reference"` // the provider's
}

type actResource struct {
	Number    int              `json:"number"`
	Action    string           `json:"action"`
	Operator  string           `json:"operator"` // the API key's id
	Holder    string           `json:"holder"`   // who had it
	Reason    string           `json:"reason"`
	Step      string           `json:"step"`
	Verdict   *verdictResource `json:"verdict"`
	CreatedAt time.Time        `json:"created_at"`
}

type verdictResource struct {
	Outcome   string  `json:"outcome"`
	Reference *string `json:"reference"`
	Code      *string `json:"code"`
	Detail    *string `json:"detail"`
}

func (s *server) listSagas(ctx context.Context, c *call) error {
	f, err := s.sagaFilter(c)
	if err != nil {
		return err
	}
	if f.Of, err = s.sagaSubjects(ctx, c); err != nil {
		return err
	}
	limit := f.Limit
	f.Limit++ // one more tells whether there are more
	sagas, err := s.Orders.Operations().List(ctx, f)
	if err != nil {
		return err
	}
	return s.ok(ctx, c, pageOf(s, c, sagas, limit, newSagaResource, func(o order.SagaSummary) string { return o.ID }))
}

func (s *server) sagaFilter(c *call) (f order.SagaFilter, err error) {
	f.Definition = c.query.Get("definition")
	if f.After, f.Limit, err = s.page(c, payment.PrefixSaga); err != nil {
		return f, err
	}
	if state := c.query.Get("state"); c.query.Has("state") {
		if !slices.Contains(order.SagaStates(), state) {
			return f, queryError("/query/state", "state_invalid", "must be one of "+strings.Join(order.SagaStates(), ", "))
		}
		f.State = order.SagaState(state)
	}
	if c.query.Has("older_than") {
		age, err := time.ParseDuration(c.query.Get("older_than"))
		if err != nil || !shortDuration.MatchString(c.query.Get("older_than")) {
			return f, queryError("/query/older_than", "duration_invalid", "must be a duration like 90s or 2h")
		}
		f.OlderThan = age
	}
	if c.query.Has("paused") {
		if c.query.Get("paused") != "true" {
			return f, queryError("/query/paused", "value_invalid", "must be true")
		}
		f.Paused = true
	}
	if c.query.Has("definition") && !slices.Contains(order.SagaNames(), f.Definition) {
		return f, queryError("/query/definition", "definition_invalid", "must be one of "+strings.Join(order.SagaNames(), ", "))
	}
	return f, nil
}

func (s *server) getSaga(ctx context.Context, c *call) error {
	return s.showSaga(ctx, c, chi.URLParam(c.r, "id"))
}

func (s *server) showSaga(ctx context.Context, c *call, id string) error {
	f, err := s.Orders.Operations().Open(ctx, id)
	if err != nil {
		return err
	}
	return s.ok(ctx, c, newSagaFileResource(f))
}

func newSagaFileResource(f order.SagaFile) sagaResource {
	r := newSagaResource(f.Summary)
	r.Attempts, r.Actions = make([]sagaAttemptResource, len(f.Attempts)), make([]actResource, len(f.Acts))
	for i, t := range f.Attempts {
		r.Attempts[i] = sagaAttemptResource{
			Number: t.Number, Step: t.Step, Call: t.Call, Epoch: t.Epoch, Owner: t.Owner, IdempotencyKey: given(t.IdempotencyKey),
			RequestDigest: given(t.RequestDigest), StartedAt: shown(t.StartedAt), FinishedAt: utc(t.FinishedAt),
			Outcome: given(string(t.Outcome)), Code: given(t.Code), Detail: given(t.Detail), Reference: given(t.Reference),
		}
	}
	for i, a := range f.Acts {
		r.Actions[i] = actResource{Number: a.Number, Action: a.Action, Operator: a.Operator, Holder: a.Holder, Reason: a.Reason, Step: a.Step, CreatedAt: shown(a.CreatedAt)}
		if v := a.Verdict; v != nil {
			r.Actions[i].Verdict = &verdictResource{string(v.Verdict), given(v.Reference), given(v.Code), given(v.Detail)}
		}
	}
	return r
}

func newSagaResource(s order.SagaSummary) sagaResource {
	return sagaResource{
		ID: s.ID, Object: "saga", Merchant: s.MerchantID, Definition: s.Definition, Version: s.Version, Subject: s.Subject, Payment: given(order.PaymentOf(s)),
		State: string(s.State), Step: s.Step, StepSince: shown(s.StepSince), Tries: s.Tries, Resolving: s.Resolving, Awaiting: s.Awaiting,
		Rejection: rejected(s.Rejection), Parked: rejected(s.Parked), Deadline: utc(s.Deadline), PausedAt: utc(s.PausedAt),
		Owner: s.Owner, Epoch: s.Epoch, DueAt: utc(s.DueAt), CreatedAt: shown(s.CreatedAt), Trace: s.Trace, WaitsFor: s.WaitsFor,
	}
}

func rejected(r *order.SagaRejection) *rejectionResource {
	if r == nil {
		return nil
	}
	return &rejectionResource{r.Step, r.Code, r.Detail}
}

type actRequest struct {
	Reason  *string `json:"reason"`
	Verdict *struct {
		Outcome   *string `json:"outcome"`
		Reference *string `json:"reference"`
		Code      *string `json:"code"`
		Detail    *string `json:"detail"`
	} `json:"verdict"`
}

// actOnSaga keeps the API key's id as the operator, and its holder: two keys of one
// holder are one person.
func (s *server) actOnSaga(ctx context.Context, c *call) error {
	act := chi.URLParam(c.r, "act")
	if !slices.Contains(order.Acts(), act) {
		return payment.Errorf(payment.CodeNotFound, "There is nothing at this path.")
	}
	var q actRequest
	if err := c.decode(&q); err != nil {
		return err
	}
	by, verdict, err := q.read(c.principal, act)
	if err != nil {
		return err
	}
	id := chi.URLParam(c.r, "id")
	if err := s.Orders.Operations().Act(ctx, by, id, act, verdict); err != nil {
		return err
	}
	return s.showSaga(ctx, c, id)
}

func (q actRequest) read(p access.Principal, act string) (by order.By, v order.Verdict, err error) {
	var f fields
	by = order.By{Operator: p.KeyID, Holder: p.Holder, Reason: take(&f, q.Reason, "/reason")}
	f.reason(q.Reason, "/reason")
	switch tells := act == "propose" || act == "approve"; {
	case !tells && q.Verdict != nil:
		f = append(f, payment.FieldError{Pointer: "/verdict", Code: "member_unknown", Message: "belongs to a proposal and to its approval"})
	case tells && q.Verdict == nil:
		take(&f, q.Verdict, "/verdict")
	case q.Verdict != nil:
		outcome := take(&f, q.Verdict.Outcome, "/verdict/outcome")
		switch outcome {
		case string(order.VerdictSucceeded):
			v = order.Verdict{Verdict: order.VerdictSucceeded, Reference: take(&f, q.Verdict.Reference, "/verdict/reference")}
		case string(order.VerdictRejected):
			v = order.Verdict{Verdict: order.VerdictRejected, Code: take(&f, q.Verdict.Code, "/verdict/code")}
		default:
			f = append(f, payment.FieldError{Pointer: "/verdict/outcome", Code: "outcome_invalid", Message: "must be succeeded or rejected"})
		}
		f.text(q.Verdict.Reference, "/verdict/reference", payment.MaxReference)
		f.text(q.Verdict.Code, "/verdict/code", payment.MaxReference)
		if f.reason(q.Verdict.Detail, "/verdict/detail"); q.Verdict.Detail != nil {
			v.Detail = *q.Verdict.Detail
		}
	}
	return by, v, f.err()
}
