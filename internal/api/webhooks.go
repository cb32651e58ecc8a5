package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"payments/internal/idempotency"
	"payments/internal/payment"
	"payments/internal/webhook"
)

type endpointRequest struct {
	URL    *string   `json:"url"`
	Events *[]string `json:"events"`
}

type endpointResource struct {
	ID             string     `json:"id"`
	Object         string     `json:"object"`
	Merchant       string     `json:"merchant"`
	URL            string     `json:"url"`
	Events         []string   `json:"events"`
	Status         string     `json:"status"`          // enabled or disabled
	DisabledReason *string    `json:"disabled_reason"` // gone or failing
	DisabledAt     *time.Time `json:"disabled_at"`
	FailingSince   *time.Time `json:"failing_since"`
	CreatedAt      time.Time  `json:"created_at"`
	UpdatedAt      time.Time  `json:"updated_at"`
	// Shown by the answer that made it, and by its replay.
	Secret             *string    `json:"secret,omitzero"`
	PreviousSecretEnds *time.Time `json:"previous_secret_ends_at,omitzero"`
}

type deliveryResource struct {
	ID            string            `json:"id"` // the webhook-id
	Object        string            `json:"object"`
	Endpoint      string            `json:"endpoint"`
	EventID       string            `json:"event_id"`
	EventType     string            `json:"event_type"`
	Payment       string            `json:"payment"`
	Status        webhook.State     `json:"status"`
	AttemptCount  int               `json:"attempt_count"`
	NextAttemptAt *time.Time        `json:"next_attempt_at"`
	Attempts      []attemptResource `json:"attempts"` // the newest, oldest first
	CreatedAt     time.Time         `json:"created_at"`
	SettledAt     *time.Time        `json:"settled_at"`
}

type attemptResource struct {
	Number     int             `json:"number"`
	StartedAt  time.Time       `json:"started_at"`
	DurationMS int64           `json:"duration_ms"`
	Outcome    webhook.Outcome `json:"outcome"`
	Status     *int            `json:"status"` // null without an answer
	Detail     string          `json:"detail"`
}

func newEndpointResource(e webhook.Endpoint) endpointResource {
	r := endpointResource{
		ID: e.ID, Object: "webhook_endpoint", Merchant: e.MerchantID, URL: e.URL, Events: e.Events, Status: "enabled", DisabledReason: given(e.DisabledReason),
		DisabledAt: utc(e.DisabledAt), FailingSince: utc(e.FailingSince), CreatedAt: shown(e.CreatedAt), UpdatedAt: shown(e.UpdatedAt),
	}
	if e.DisabledReason != "" {
		r.Status = "disabled"
	}
	return r
}

// endpoint masks of the URL what may hold a token, unless the caller may see it.
func (c *call) endpoint(e webhook.Endpoint) endpointResource {
	r := newEndpointResource(e)
	if !c.confidential {
		scheme, rest, _ := strings.Cut(e.URL, "://")
		if host := strings.IndexAny(rest, "/?"); host >= 0 {
			r.URL = scheme + "://" + rest[:host] + "/" + masked
		}
	}
	return r
}

func newDeliveryResource(d webhook.Delivery) deliveryResource {
	r := deliveryResource{
		ID: d.ID, Object: "webhook_delivery", Endpoint: d.EndpointID, EventID: d.EventID, EventType: d.EventType, Payment: d.PaymentID,
		Status: d.State, AttemptCount: d.Attempts, NextAttemptAt: utc(d.DueAt), Attempts: make([]attemptResource, len(d.Log)),
		CreatedAt: shown(d.CreatedAt), SettledAt: utc(d.SettledAt),
	}
	for i, a := range d.Log {
		r.Attempts[i] = attemptResource{Number: a.Number, StartedAt: shown(a.StartedAt), DurationMS: a.Duration.Milliseconds(), Outcome: a.Outcome, Detail: a.Detail}
		if a.Status != 0 {
			r.Attempts[i].Status = &a.Status
		}
	}
	return r
}

// sealEndpoint keeps the answer with the secret in it encrypted, like every other.
func (s *server) sealEndpoint(request idempotency.Request) func(webhook.Keyed) (idempotency.Response, error) {
	return func(k webhook.Keyed) (idempotency.Response, error) {
		r := newEndpointResource(k.Endpoint)
		r.Secret = &k.Secret
		if !k.PreviousUntil.IsZero() {
			r.PreviousSecretEnds = utc(&k.PreviousUntil)
		}
		resp, err := s.seal(request, k.ID, "/v1/webhook_endpoints/"+k.ID, "", r)
		resp.Status = http.StatusCreated
		return resp, err
	}
}

func (s *server) createEndpoint(ctx context.Context, c *call) error {
	var q endpointRequest
	request, err := c.keyed(&q)
	if err != nil {
		return err
	}
	var f fields
	draft, err := webhook.NewDraft(s.Webhooks.Guard(), take(&f, q.URL, "/url"), take(&f, q.Events, "/events"))
	if err := f.merge(err); err != nil {
		return err
	}
	if err := f.err(); err != nil {
		return err
	}
	resp, replayed, err := s.Webhooks.Create(ctx, request, draft, s.sealEndpoint(request))
	if err != nil {
		return err
	}
	return s.unseal(c, request, resp, replayed)
}

const (
	defaultOverlap = 24 * time.Hour
	maxOverlap     = 7 * 24 * time.Hour
)

func (s *server) rotateSecret(ctx context.Context, c *call) error {
	var q struct {
		Overlap *int64 `json:"overlap_seconds"` // optional
	}
	request, err := c.keyed(&q)
	if err != nil {
		return err
	}
	overlap := defaultOverlap
	if q.Overlap != nil {
		if *q.Overlap < 0 || *q.Overlap > int64(maxOverlap/time.Second) {
			return invalid("/overlap_seconds", "out_of_range", "must be from 0 to "+strconv.FormatInt(int64(maxOverlap/time.Second), 10))
		}
		overlap = time.Duration(*q.Overlap) * time.Second
	}
	resp, replayed, err := s.Webhooks.Rotate(ctx, request, chi.URLParam(c.r, "id"), overlap, s.sealEndpoint(request))
	if err != nil {
		return err
	}
	return s.unseal(c, request, resp, replayed)
}

func (s *server) getEndpoint(ctx context.Context, c *call) error {
	e, err := s.Webhooks.Get(ctx, c.scope, chi.URLParam(c.r, "id"))
	if err != nil {
		return err
	}
	return s.ok(ctx, c, c.endpoint(e))
}

func (s *server) listEndpoints(ctx context.Context, c *call) error {
	after, limit, err := s.page(c, payment.PrefixEndpoint)
	if err != nil {
		return err
	}
	page, more, err := s.Webhooks.List(ctx, c.scope, after, limit)
	if err != nil {
		return err
	}
	l := listOf(page, c.endpoint)
	if l.HasMore = more; more {
		l.NextCursor = s.behind(c, page[len(page)-1].ID)
	}
	return s.ok(ctx, c, l)
}

func (s *server) deleteEndpoint(ctx context.Context, c *call) error {
	merchantID, _ := c.scope.Merchant()
	if err := s.Webhooks.Delete(ctx, merchantID, chi.URLParam(c.r, "id")); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) enableEndpoint(ctx context.Context, c *call) error {
	if err := c.decode(&struct{}{}); err != nil {
		return err
	}
	merchantID, _ := c.scope.Merchant()
	e, err := s.Webhooks.Enable(ctx, merchantID, chi.URLParam(c.r, "id"))
	if err != nil {
		return err
	}
	return s.ok(ctx, c, c.endpoint(e))
}

func (s *server) listDeliveries(ctx context.Context, c *call) error {
	after, limit, err := s.page(c, payment.PrefixDelivery)
	if err != nil {
		return err
	}
	events, err := s.askedDeliveries(ctx, c)
	if err != nil {
		return err
	}
	id := chi.URLParam(c.r, "id")
	list := func() ([]webhook.Delivery, bool, error) { return s.Webhooks.Deliveries(ctx, c.scope, id, after, limit) }
	if events != nil {
		list = func() ([]webhook.Delivery, bool, error) {
			return s.Webhooks.DeliveriesOf(ctx, c.scope, id, events, after, limit)
		}
	}
	page, more, err := list()
	if err != nil {
		return err
	}
	l := listOf(page, newDeliveryResource)
	if l.HasMore = more; more {
		l.NextCursor = s.behind(c, page[len(page)-1].ID)
	}
	return s.ok(ctx, c, l)
}

func (s *server) redeliver(ctx context.Context, c *call) error {
	if err := c.decode(&struct{}{}); err != nil {
		return err
	}
	merchantID, _ := c.scope.Merchant()
	d, err := s.Webhooks.Redeliver(ctx, merchantID, chi.URLParam(c.r, "id"), chi.URLParam(c.r, "delivery"))
	if err != nil {
		return err
	}
	s.write(ctx, c.w, http.StatusAccepted, "application/json", newDeliveryResource(d))
	return nil
}
