package api

import (
	"context"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"payments/internal/payment"
	"payments/internal/webhook"
)

// redeliveryRequest names a range; without a bound it is open at that end.
type redeliveryRequest struct {
	From *string `json:"from"`
	To   *string `json:"to"`
}

func (q redeliveryRequest) in() (r webhook.Range, err error) {
	var f fields
	read := func(at string, given *string) (t time.Time) {
		if given == nil {
			return t
		}
		t, err := payment.ParseTime(*given)
		if err != nil {
			f = append(f, payment.FieldError{Pointer: at, Code: "time_invalid", Message: "must be an RFC 3339 time"})
		}
		return t
	}
	r.From, r.To = read("/from", q.From), read("/to", q.To)
	return r, f.err()
}

type redeliveryResource struct {
	Object   string `json:"object"`
	Endpoint string `json:"endpoint"`
	Missed   int    `json:"missed"`
	Failed   int    `json:"failed"`
	HasMore  bool   `json:"has_more"`
}

// redeliverRange takes one step: many events are asked for by many requests that are the same.
func (s *server) redeliverRange(ctx context.Context, c *call) error {
	var q redeliveryRequest
	if err := c.decode(&q); err != nil {
		return err
	}
	in, err := q.in()
	if err != nil {
		return err
	}
	merchantID, _ := c.scope.Merchant()
	id := chi.URLParam(c.r, "id")
	done, err := s.Webhooks.RedeliverRange(ctx, merchantID, id, in)
	if err != nil {
		return err
	}
	s.write(ctx, c.w, http.StatusAccepted, "application/json", redeliveryResource{
		Object: "webhook_redelivery", Endpoint: id, Missed: done.Missed, Failed: done.Failed, HasMore: done.More,
	})
	return nil
}
