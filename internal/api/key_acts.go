package api

import (
	"context"
	"time"

	"payments/internal/access"
	"payments/internal/payment"
)

// keyActResource is one line of the record of acts on API keys.
type keyActResource struct {
	ID        string           `json:"id"`
	Object    string           `json:"object"`
	Action    access.KeyAction `json:"action"`
	Key       string           `json:"key"`
	KeyHolder *string          `json:"key_holder"`
	Merchant  *string          `json:"merchant"`
	Operator  *string          `json:"operator"` // the API key's id of who acted
	Holder    *string          `json:"holder"`   // who had it
	Source    access.Source    `json:"source"`
	Origin    string           `json:"origin"`
	Detail    *string          `json:"detail"`
	CreatedAt time.Time        `json:"created_at"`
}

func newKeyActResource(a access.KeyAct) keyActResource {
	return keyActResource{
		ID: a.ID, Object: "key_act", Action: a.Action, Key: a.KeyID, KeyHolder: given(a.KeyHolder), Merchant: given(a.MerchantID),
		Operator: a.Operator, Holder: a.Holder, Source: a.Source, Origin: a.Origin, Detail: a.Detail, CreatedAt: shown(a.CreatedAt),
	}
}

func (s *server) listKeyActs(ctx context.Context, c *call) error {
	key := c.query.Get("key")
	if c.query.Has("key") && !payment.ValidID(payment.PrefixKey, key) {
		return queryError("/query/key", "id_invalid", "must be an API key's id (key_…)")
	}
	after, limit, err := s.page(c, payment.PrefixKeyAct)
	if err != nil {
		return err
	}
	acts, err := s.Keys.Acts(ctx, key, after, limit+1)
	if err != nil {
		return err
	}
	return s.ok(ctx, c, pageOf(s, c, acts, limit, newKeyActResource, func(a access.KeyAct) string { return a.ID }))
}
