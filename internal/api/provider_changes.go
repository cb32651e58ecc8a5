package api

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"payments/internal/order"
	"payments/internal/payment"
)

// providerChangeResource is what was found at the provider and not asked for here.
type providerChangeResource struct {
	ID        string     `json:"id"`
	Object    string     `json:"object"`
	Merchant  string     `json:"merchant"`
	Payment   string     `json:"payment"`
	Kind      string     `json:"kind"`
	Subject   string     `json:"subject"` // the provider's id of what it is about
	Amount    int64      `json:"amount"`
	Detail    string     `json:"detail"`
	State     string     `json:"state"`
	FoundAt   time.Time  `json:"found_at"`
	DecidedAt *time.Time `json:"decided_at"`
	Operator  *string    `json:"operator"` // the API key's id of who accepted it
	Holder    *string    `json:"holder"`
	Reason    *string    `json:"reason"`
}

func newProviderChangeResource(c order.ProviderChange) providerChangeResource {
	return providerChangeResource{
		ID: c.ID, Object: "provider_change", Merchant: c.MerchantID, Payment: c.PaymentID, Kind: c.Kind, Subject: c.Subject, Amount: c.Amount,
		Detail: c.Detail, State: c.State, FoundAt: shown(c.FoundAt), DecidedAt: utc(c.DecidedAt), Operator: c.Operator, Holder: c.Holder, Reason: c.Reason,
	}
}

func (s *server) listProviderChanges(ctx context.Context, c *call) error {
	state := c.query.Get("state")
	if c.query.Has("state") && !slices.Contains(order.ProviderChangeStates(), state) {
		return queryError("/query/state", "state_invalid", "must be one of "+strings.Join(order.ProviderChangeStates(), ", "))
	}
	after, limit, err := s.page(c, payment.PrefixChange)
	if err != nil {
		return err
	}
	changes, err := s.Orders.Operations().Changes(ctx, state, after, limit+1)
	if err != nil {
		return err
	}
	return s.ok(ctx, c, pageOf(s, c, changes, limit, newProviderChangeResource, func(o order.ProviderChange) string { return o.ID }))
}

type acceptRequest struct {
	Reason *string `json:"reason"`
}

func (s *server) acceptProviderChange(ctx context.Context, c *call) error {
	var q acceptRequest
	if err := c.decode(&q); err != nil {
		return err
	}
	var f fields
	by := order.By{Operator: c.principal.KeyID, Holder: c.principal.Holder, Reason: take(&f, q.Reason, "/reason")}
	f.reason(q.Reason, "/reason")
	if err := f.err(); err != nil {
		return err
	}
	change, err := s.Orders.Operations().AcceptChange(ctx, by, chi.URLParam(c.r, "id"))
	if err != nil {
		return err
	}
	return s.ok(ctx, c, newProviderChangeResource(change))
}
