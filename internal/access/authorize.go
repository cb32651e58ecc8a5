package access

import (
	"slices"

	"payments/internal/payment"
)

// Scope bounds a query to what its caller may see. Only Authorize makes one that
// allows anything.
type Scope struct {
	merchant string
	all      bool
}

// Merchant is the one merchant whose rows are in scope, or all. An empty id
// without all matches no row.
func (s Scope) Merchant() (id string, all bool) { return s.merchant, s.all }

// Authorize decides by the policy: nothing that matches is a deny, and an
// explicit deny wins. A refusal is CodeForbidden.
func Authorize(p Principal, a Action) (Scope, error) {
	switch e := decide(policy, p.Role, a); {
	case e == all:
		return Scope{all: true}, nil
	case e == own && p.MerchantID != "":
		return Scope{merchant: p.MerchantID}, nil
	default:
		return Scope{}, payment.Errorf(payment.CodeForbidden, "The role of this API key does not permit this.")
	}
}

// decide gives the widest extent that is allowed.
func decide(statements []statement, r Role, a Action) extent {
	widest := nothing
	for _, s := range statements {
		if !slices.Contains(s.roles, r) || !slices.Contains(s.actions, a) {
			continue
		}
		if s.effect != allow {
			return nothing
		}
		widest = max(widest, s.scope)
	}
	return widest
}
