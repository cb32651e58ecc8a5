package access

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/payment"
	"payments/internal/postgres"
)

// Scope bounds a query to what its caller may see. Only an Authorizer makes one
// that allows anything.
type Scope struct {
	merchant string
	all      bool
}

// Merchant is the one merchant whose rows are in scope, or all. An empty id
// without all matches no row.
func (s Scope) Merchant() (id string, all bool) { return s.merchant, s.all }

// Bound bounds all that is done with the context to the scope a second time: the
// database shows no row outside it, whatever a query asks for.
func (s Scope) Bound(ctx context.Context) context.Context {
	if s.all {
		return ctx
	}
	return postgres.ForTenant(ctx, s.merchant)
}

// Decision is what a permitted caller may see: rows, and of their members those
// that not everybody sees.
type Decision struct {
	Scope Scope
	// Confidential: what ConfidentialRead names is shown in the clear.
	Confidential bool
}

// Authorizer decides by the policies in policy/.
type Authorizer struct {
	policies policies
	log      *slog.Logger
	failures prometheus.Counter
}

// NewAuthorizer fails when a policy does not fit the schema.
func NewAuthorizer(log *slog.Logger, reg prometheus.Registerer) (*Authorizer, error) {
	dir, err := fs.Sub(policyFiles, "policy")
	if err != nil {
		return nil, fmt.Errorf("open policies: %w", err)
	}
	return LoadAuthorizer(dir, log, reg)
}

// LoadAuthorizer is NewAuthorizer for other policies and another schema.
func LoadAuthorizer(dir fs.FS, log *slog.Logger, reg prometheus.Registerer) (*Authorizer, error) {
	p, _, err := loadPolicies(dir)
	if err != nil {
		return nil, err
	}
	return newAuthorizer(p, log, reg)
}

func newAuthorizer(p policies, log *slog.Logger, reg prometheus.Registerer) (*Authorizer, error) {
	a := &Authorizer{policies: p, log: log, failures: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "payments_authorization_errors_total", Help: "Questions denied because a policy could not be evaluated.",
	})}
	if err := reg.Register(a.failures); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return a, nil
}

// Authorize refuses with CodeForbidden, also when the policies could not be
// evaluated, which is told to the log and the metric alone.
func (a *Authorizer) Authorize(ctx context.Context, p Principal, do Action) (Decision, error) {
	scope, _, failed := a.decide(p, do, nil)
	a.report(ctx, p, do, failed)
	if scope == (Scope{}) {
		return Decision{}, errForbidden()
	}
	confidential, _, failed := a.decide(p, ConfidentialRead, nil)
	a.report(ctx, p, ConfidentialRead, failed)
	return Decision{Scope: scope, Confidential: confidential.covers(scope)}, nil
}

// Refund is what a policy may look at: the amount, and, in minor units of its currency and this
// refund included, what persons of the service gave back for the payment, and what this person
// gave back today.
type Refund struct {
	Amount                   payment.Money
	OfPayment, OfPersonToday int64
}

// FirstRefund is one before which nothing was given back.
func FirstRefund(amount payment.Money) Refund {
	return Refund{amount, amount.Amount(), amount.Amount()}
}

// AuthorizeRefund asks again once the amount is known: a role may have a budget.
func (a *Authorizer) AuthorizeRefund(ctx context.Context, p Principal, r Refund) error {
	scope, _, failed := a.decide(p, RefundsCreate, &r)
	a.report(ctx, p, RefundsCreate, failed)
	if scope == (Scope{}) {
		return payment.Errorf(payment.CodeForbidden,
			"The role of this API key does not permit a refund of this amount: it has a budget for each payment, and one for each person and day.")
	}
	return nil
}

// report tells those who run the service; a caller learns of a deny only.
func (a *Authorizer) report(ctx context.Context, p Principal, do Action, failed []string) {
	if len(failed) == 0 {
		return
	}
	a.failures.Inc()
	a.log.ErrorContext(ctx, "a policy could not be evaluated: denied", "policies", failed, "action", do, "role", p.Role, "key", p.KeyID)
}

func errForbidden() *payment.Error {
	return payment.Errorf(payment.CodeForbidden, "The role of this API key does not permit this.")
}

// covers reports whether every row of inner is in s.
func (s Scope) covers(inner Scope) bool { return s.all || s == inner && s.merchant != "" }

// Explanation is why a decision is what it is.
type Explanation struct {
	Scope    Scope    // the zero Scope is a deny
	Policies []string // that decided; none: nothing matched
	Failed   []string // that could not be evaluated, for which all is denied
}

// Explain gives Authorize's decision with its reasons; refund may be nil.
func (a *Authorizer) Explain(p Principal, do Action, refund *Refund) Explanation {
	scope, by, failed := a.decide(p, do, refund)
	return Explanation{scope, by, failed}
}

// decide gives the widest scope that is allowed: everybody's rows, or the
// principal's merchant's own, or none.
func (a *Authorizer) decide(p Principal, do Action, refund *Refund) (s Scope, by, failed []string) {
	ofAll := a.policies.ask(question{principal: p, action: do, refund: refund})
	if len(ofAll.failed) > 0 {
		return Scope{}, nil, ofAll.failed
	}
	if ofAll.allowed {
		return Scope{all: true}, ofAll.policies, nil
	}
	if p.MerchantID == "" {
		return Scope{}, ofAll.policies, nil
	}
	own := a.policies.ask(question{principal: p, action: do, merchantID: p.MerchantID, refund: refund})
	if len(own.failed) > 0 {
		return Scope{}, nil, own.failed
	}
	if own.allowed {
		return Scope{merchant: p.MerchantID}, own.policies, nil
	}
	by = append(ofAll.policies, own.policies...)
	slices.Sort(by)
	return Scope{}, slices.Compact(by), nil
}
