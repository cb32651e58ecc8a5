package api

import (
	"context"

	"github.com/go-chi/chi/v5"
	"github.com/go-json-experiment/json/jsontext"
)

// maxNotification bytes are far above any event of a provider. internal/provider has the same bound.
const maxNotification = 256 << 10

// receipt is all that a provider needs to know.
type receipt struct {
	Received bool `json:"received"`
}

func (s *server) takeNotification(ctx context.Context, c *call) error {
	body, err := c.bodyWithin(maxNotification)
	if err != nil {
		return err
	}
	if !jsontext.Value(body).IsValid() { // its reader would take what is no UTF-8
		return malformed("", "is not JSON")
	}
	if err := s.ProviderWebhooks.Receive(ctx, chi.URLParam(c.r, "provider"), c.r.Header, body); err != nil {
		return err
	}
	return s.ok(ctx, c, receipt{true})
}
