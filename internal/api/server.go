package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"payments/internal/access"
	"payments/internal/idempotency"
	"payments/internal/inbox"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/readmodel"
	"payments/internal/webhook"
)

const (
	// requestTimeout bounds the work of a request, so that a dead database gives
	// a 503 and no hang. A Prefer: wait comes on top of it.
	requestTimeout = 10 * time.Second
	headerTimeout  = 5 * time.Second
	idleTimeout    = 2 * time.Minute
	// writeTimeout is longer than any request: body, work, and the longest wait.
	writeTimeout = 90 * time.Second
	// bodyTimeout bounds the reading of a body, whether a handler reads it or the server
	// discards it after the answer.
	bodyTimeout    = 10 * time.Second
	maxHeaderBytes = 16 << 10
)

// Orders is the write side.
type Orders interface {
	// Place runs key, order, payment, saga, event and stored response in one
	// transaction. render makes the response to store.
	Place(ctx context.Context, r idempotency.Request, o payment.Order,
		render func(order.Placed) (idempotency.Response, error)) (resp idempotency.Response, replayed bool, err error)
	// Kept is the stored response of the request, if it was placed before.
	Kept(ctx context.Context, r idempotency.Request) (resp idempotency.Response, kept bool, err error)
	// Stock lists the merchant's stock, or everybody's when merchantID is empty, behind a level's merchant and sku.
	Stock(ctx context.Context, merchantID string, after order.StockLevel, limit int) ([]order.StockLevel, error)
	SetStock(ctx context.Context, levels []payment.Stock) ([]order.StockLevel, error)
	// Cancel and Capture answer the payment as they found it, which a read after them has to have seen.
	Cancel(ctx context.Context, merchantID, paymentID string) (order.Payment, error)
	Capture(ctx context.Context, merchantID, paymentID string) (order.Payment, error)
	// Payment and WaitFor read the write model, for the answers of commands; merchantID is empty for any.
	Payment(ctx context.Context, merchantID, paymentID string) (order.Payment, error)
	WaitFor(ctx context.Context, merchantID, paymentID string, wait time.Duration, done func(payment.Status) bool) (order.Payment, bool, error)
	// Refund is to refunds what Place is to payments.
	Refund(ctx context.Context, r idempotency.Request, paymentID string, wanted payment.Refund,
		render func(order.Refunding) (idempotency.Response, error)) (resp idempotency.Response, replayed bool, err error)
	Operations() order.Operations
}

// Payments is the read side.
type Payments interface {
	// Get does not wait for a payment that is not projected yet.
	Get(ctx context.Context, scope access.Scope, id string) (readmodel.Payment, error)
	List(ctx context.Context, scope access.Scope, f readmodel.Filter) (readmodel.Page, error)
	// Timeline is at most limit of the entries after a sequence.
	Timeline(ctx context.Context, scope access.Scope, id string, after int64, limit int) ([]readmodel.Entry, error)
	// Refunds are those behind an id, at most limit.
	Refunds(ctx context.Context, scope access.Scope, paymentID, after string, limit int) ([]readmodel.Refund, error)
	Count(ctx context.Context, scope access.Scope, f readmodel.Filter) (readmodel.Count, error)
	Expand(ctx context.Context, payments []readmodel.Payment, e readmodel.Expand) (map[string]readmodel.Expanded, error)
	// Passed answers at once whether the position is projected, for which AwaitPosition waits.
	Passed(ctx context.Context, scope access.Scope, at readmodel.Position) (bool, error)
	AwaitPosition(ctx context.Context, scope access.Scope, at readmodel.Position) error
	EventsOf(ctx context.Context, merchantID, paymentID string, after readmodel.FeedCursor, limit int) ([]readmodel.FeedEvent, error)
	// FeedHead and Feed are of a merchant that is in scope.
	FeedHead(ctx context.Context, merchantID string) (readmodel.FeedCursor, error)
	Feed(ctx context.Context, merchantID string, after readmodel.FeedCursor, limit int) ([]readmodel.FeedEvent, error)
}

// ProviderWebhooks takes what a payment provider signed. Its refusals are
// *payment.Error, not_found for a provider that is unknown.
type ProviderWebhooks interface {
	Receive(ctx context.Context, provider string, h http.Header, body []byte) error
}

// DeadLetters is what operators see of blocked keys and do about them.
type DeadLetters interface {
	List(ctx context.Context, f inbox.BlockedFilter) (inbox.BlockedPage, error)
	Groups(ctx context.Context) ([]inbox.BlockedGroup, error)
	Show(ctx context.Context, id string, limit int) (inbox.BlockedKey, []inbox.DeadLetter, error)
	Replay(ctx context.Context, id string) (inbox.Replay, error)
	ReplayAll(ctx context.Context, f inbox.BlockedFilter) ([]inbox.Replay, error)
	Discard(ctx context.Context, id string, by inbox.By, offset *int64) (remaining int64, err error)
}

// Webhooks are the merchants' endpoints and what was delivered to them.
type Webhooks interface {
	// Guard says which addresses an endpoint may have.
	Guard() webhook.Guard
	// Create and Rotate are to endpoints and their secrets what Place is to payments.
	Create(ctx context.Context, r idempotency.Request, d webhook.Draft,
		render func(webhook.Keyed) (idempotency.Response, error)) (resp idempotency.Response, replayed bool, err error)
	Rotate(ctx context.Context, r idempotency.Request, endpointID string, overlap time.Duration,
		render func(webhook.Keyed) (idempotency.Response, error)) (resp idempotency.Response, replayed bool, err error)
	Get(ctx context.Context, scope access.Scope, id string) (webhook.Endpoint, error)
	List(ctx context.Context, scope access.Scope, after string, limit int) (page []webhook.Endpoint, more bool, err error)
	Delete(ctx context.Context, merchantID, id string) error
	Enable(ctx context.Context, merchantID, id string) (webhook.Endpoint, error)
	Deliveries(ctx context.Context, scope access.Scope, endpointID, after string, limit int) (page []webhook.Delivery, more bool, err error)
	DeliveriesOf(ctx context.Context, scope access.Scope, endpointID string, events []string, after string, limit int) (page []webhook.Delivery, more bool, err error)
	Redeliver(ctx context.Context, merchantID, endpointID, id string) (webhook.Delivery, error)
	RedeliverRange(ctx context.Context, merchantID, endpointID string, in webhook.Range) (webhook.Redelivered, error)
}

// PaymentMethods opens the tokens of payments, each sealed for its payment's id, and
// knows the fingerprints by which they are found.
type PaymentMethods interface {
	Open(ciphertext []byte, paymentID string) (string, error)
	Fingerprints(token string) []string
}

// Cipher opens the customer's address, and seals the stored answers that show it.
type Cipher interface {
	Encrypt(plaintext, associatedData []byte) ([]byte, error)
	Decrypt(ciphertext, associatedData []byte) ([]byte, error)
}

// Config of the API; every member without a comment on its zero value is required.
type Config struct {
	Orders           Orders
	Payments         Payments
	Streams          *Streams
	DeadLetters      DeadLetters
	ProviderWebhooks ProviderWebhooks
	Webhooks         Webhooks
	Reports          Reports
	Authenticator    *access.Authenticator
	Authorizer       *access.Authorizer
	Keys             *access.Keys
	Cipher           Cipher
	Methods          PaymentMethods
	Cursors          MAC
	IDs              payment.Generator // of requests that bring no Request-Id
	RateLimits       RateLimits        // the zero value: none
	Admission        *Admission        // nil: no payment is refused for overload
	Tracer           trace.Tracer
	Log              *slog.Logger
	Held             HeldLimits // the zero value: the defaults
	// Closing ends when waiting requests have to be answered with what is known, since the
	// process stops. Default nil: never.
	Closing    context.Context //nolint:containedctx // of the process, not of a request
	Registerer prometheus.Registerer
}

type server struct {
	Config
	metrics      metrics
	limits       limits
	deprecations []deprecations // by the number of the version
	slots        *slots
	reads        atomic.Int64 // that may be left out of the log
}

// New makes the handler of the public address.
func New(c Config) (http.Handler, error) {
	if c.Orders == nil || c.Payments == nil || c.Streams == nil || c.DeadLetters == nil || c.ProviderWebhooks == nil || c.Webhooks == nil || c.Reports == nil ||
		c.Authenticator == nil || c.Authorizer == nil || c.Keys == nil || c.Cipher == nil || c.Methods == nil || c.Cursors == nil ||
		c.IDs.Now == nil || c.IDs.Random == nil || c.Tracer == nil || c.Log == nil || c.Registerer == nil {
		return nil, errors.New("api: every member of the Config has to be set")
	}
	m, err := newMetrics(c.Registerer)
	if err != nil {
		return nil, err
	}
	l, err := newLimits(c.RateLimits, m.limited)
	if err != nil {
		return nil, err
	}
	d, err := readDeprecations()
	if err != nil {
		return nil, err
	}
	held, err := newSlots(c.Held, c.Registerer)
	if err != nil {
		return nil, err
	}
	s := &server{Config: c, metrics: m, limits: l, deprecations: d, slots: held}
	if err := check(s.routes()); err != nil {
		return nil, err
	}
	return compressed(s.router())
}

// NewServer bounds what a client can hold open, whatever the route: the time to send a header
// and a body, to read an answer, and to do nothing. ReadTimeout stays unset: it would cancel a
// request that waits for its outcome.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           boundBody(h),
		ReadHeaderTimeout: headerTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(NewServerLog(log), slog.LevelWarn),
	}
}

// boundBody gives each request with a body a read deadline. A handler that reads the body to its
// end clears the deadline, since it would otherwise cancel the request's context. A body that no
// handler reads keeps the deadline: the server discards the rest of it after the answer.
func boundBody(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != http.NoBody {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		h.ServeHTTP(w, r)
	})
}

// untilClosing is ctx, ended early when waiting requests have to be answered.
func (s *server) untilClosing(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if s.Closing == nil {
		return ctx, cancel
	}
	stop := context.AfterFunc(s.Closing, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}
