package api

import (
	"context"
	"slices"

	"payments/internal/access"
	"payments/internal/payment"
)

type explainRequest struct {
	Role     *string `json:"role"`
	Action   *string `json:"action"`
	Amount   *int64  `json:"amount"` // of a refund; optional, with its currency
	Currency *string `json:"currency"`
}

type explanationResource struct {
	Object   string        `json:"object"`
	Role     access.Role   `json:"role"`
	Action   access.Action `json:"action"`
	Decision string        `json:"decision"`
	Scope    *string       `json:"scope"`    // own or all; null of a deny
	Policies []string      `json:"policies"` // that decided; empty: nothing matched, which is a deny
	Failed   []string      `json:"failed"`   // that could not be evaluated, which is a deny
}

// explainAuthorization answers what the service would decide, by the same code.
func (s *server) explainAuthorization(ctx context.Context, c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	var q explainRequest
	if err := decode(body, &q); err != nil {
		return err
	}
	p, action, refund, err := q.read()
	if err != nil {
		return err
	}
	e := s.Authorizer.Explain(p, action, refund)
	r := explanationResource{
		Object: "authorization", Role: p.Role, Action: action, Decision: "allow",
		Policies: append([]string{}, e.Policies...), Failed: append([]string{}, e.Failed...),
	}
	switch id, all := e.Scope.Merchant(); {
	case all:
		r.Scope = given("all")
	case id != "":
		r.Scope = given("own")
	default:
		r.Decision = "deny"
	}
	return s.ok(ctx, c, r)
}

func (q explainRequest) read() (p access.Principal, a access.Action, refund *access.Refund, err error) {
	var f fields
	p.Role, a = access.Role(take(&f, q.Role, "/role")), access.Action(take(&f, q.Action, "/action"))
	if q.Role != nil && !slices.Contains(access.Roles(), p.Role) {
		f = append(f, payment.FieldError{Pointer: "/role", Code: "role_invalid", Message: "must be one of " + allowedOf(access.Roles())})
	}
	if q.Action != nil && !a.Known() {
		f = append(f, payment.FieldError{Pointer: "/action", Code: "action_invalid", Message: "must be one of " + allowedOf(access.Actions())})
	}
	if p.Role.OfMerchant() {
		p.MerchantID = "mer_of_the_key"
	}
	if q.Amount == nil && q.Currency == nil {
		return p, a, nil, f.err()
	}
	if a != access.RefundsCreate {
		f = append(f, payment.FieldError{Pointer: "/amount", Code: "member_unknown", Message: "belongs to refunds:create"})
	}
	amount := take(&f, q.Amount, "/amount")
	currency, err := payment.ParseCurrency(take(&f, q.Currency, "/currency"))
	if err != nil && q.Currency != nil {
		f = append(f, payment.FieldError{Pointer: "/currency", Code: "currency_invalid", Message: err.Error()})
	}
	if err := f.err(); err != nil {
		return p, a, nil, err
	}
	m, err := payment.NewMoney(amount, currency)
	if err != nil {
		return p, a, nil, invalid("/amount", "out_of_range", err.Error())
	}
	first := access.FirstRefund(m)
	return p, a, &first, nil
}
