package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"go.opentelemetry.io/otel/trace"

	"payments/internal/access"
	"payments/internal/payment"
)

// route is one line of the table. What is not in the table does not exist, and
// nothing of its data is served without its action being permitted or its body signed.
type route struct {
	method, pattern string
	action          access.Action
	parameters      []string // of the query; nil: none
	ownParameters   bool     // the handler reads and refuses them itself
	hides           bool     // names an object: a refusal must not tell whether it exists
	signed          bool     // the signature of its body takes the place of key and action
	public          bool     // anybody may read it: it holds no data
	waits           bool     // honors Prefer: wait
	admits          bool     // begins work: refused while the service is overloaded
	readsAfter      bool     // honors Read-After
	handle          func(ctx context.Context, c *call) error
}

func (s *server) routes() []route {
	return append([]route{
		{method: http.MethodPost, pattern: "/v1/payments", action: access.PaymentsCreate, waits: true, admits: true, handle: s.createPayment},
		{method: http.MethodGet, pattern: "/v1/payments", action: access.PaymentsList, ownParameters: true, readsAfter: true, handle: s.listPayments},
		{method: http.MethodGet, pattern: "/v1/payments/{id}", action: access.PaymentsRead, parameters: []string{"expand"}, hides: true, readsAfter: true, handle: s.getPayment},
		{method: http.MethodGet, pattern: "/v1/payments/{id}/timeline", action: access.PaymentsTimeline, parameters: pageParameters(), hides: true, readsAfter: true, handle: s.getTimeline},
		{method: http.MethodGet, pattern: "/v1/payments/{id}/events", action: access.PaymentsTimeline, hides: true, readsAfter: true, handle: s.streamPayment},
		{method: http.MethodGet, pattern: "/v1/events", action: access.PaymentsTimeline, parameters: []string{"merchant"}, handle: s.streamMerchant},
		{method: http.MethodPost, pattern: "/v1/provider/webhooks/{provider}", signed: true, handle: s.takeNotification},
		{method: http.MethodPost, pattern: "/v1/payments/{id}/cancel", action: access.PaymentsCancel, hides: true, waits: true, handle: s.cancelPayment},
		{method: http.MethodPost, pattern: "/v1/payments/{id}/capture", action: access.PaymentsCapture, hides: true, waits: true, handle: s.capturePayment},
		{method: http.MethodPost, pattern: "/v1/payments/{id}/refunds", action: access.RefundsCreate, hides: true, handle: s.createRefund},
		{method: http.MethodGet, pattern: "/v1/payments/{id}/refunds", action: access.RefundsList, hides: true, readsAfter: true, parameters: pageParameters(), handle: s.listRefunds},
		{method: http.MethodGet, pattern: "/v1/ops/sagas", action: access.SagasRead, parameters: sagaParameters(), handle: s.listSagas},
		{method: http.MethodGet, pattern: "/v1/ops/sagas/{id}", action: access.SagasRead, hides: true, handle: s.getSaga},
		{method: http.MethodPost, pattern: "/v1/ops/sagas/{id}/{act}", action: access.SagasOperate, hides: true, handle: s.actOnSaga},
		{method: http.MethodGet, pattern: "/v1/ops/provider_changes", action: access.SagasRead, parameters: append(pageParameters(), "state"), handle: s.listProviderChanges},
		{method: http.MethodPost, pattern: "/v1/ops/provider_changes/{id}/accept", action: access.SagasOperate, hides: true, handle: s.acceptProviderChange},
		{method: http.MethodGet, pattern: "/v1/stock", action: access.StockRead, parameters: append(pageParameters(), "merchant"), handle: s.listStock},
		{method: http.MethodPut, pattern: "/v1/stock", action: access.StockWrite, handle: s.setStock},
		{method: http.MethodPost, pattern: "/v1/webhook_endpoints", action: access.WebhooksWrite, handle: s.createEndpoint},
		{method: http.MethodGet, pattern: "/v1/webhook_endpoints", action: access.WebhooksRead, parameters: pageParameters(), handle: s.listEndpoints},
		{method: http.MethodGet, pattern: "/v1/webhook_endpoints/{id}", action: access.WebhooksRead, hides: true, handle: s.getEndpoint},
		{method: http.MethodDelete, pattern: "/v1/webhook_endpoints/{id}", action: access.WebhooksWrite, hides: true, handle: s.deleteEndpoint},
		{method: http.MethodPost, pattern: "/v1/webhook_endpoints/{id}/rotate_secret", action: access.WebhooksWrite, hides: true, handle: s.rotateSecret},
		{method: http.MethodGet, pattern: "/v1/webhook_endpoints/{id}/deliveries", action: access.WebhooksRead, parameters: append(pageParameters(), "payment"), hides: true, handle: s.listDeliveries},
		// These three can be repeated as often as one likes: a receiver sees the same id.
		{method: http.MethodPost, pattern: "/v1/webhook_endpoints/{id}/enable", action: access.WebhooksWrite, hides: true, handle: s.enableEndpoint},
		{method: http.MethodPost, pattern: "/v1/webhook_endpoints/{id}/redeliver", action: access.WebhooksWrite, hides: true, handle: s.redeliverRange},
		{method: http.MethodPost, pattern: "/v1/webhook_endpoints/{id}/deliveries/{delivery}/redeliver", action: access.WebhooksWrite, hides: true, handle: s.redeliver},
		{method: http.MethodGet, pattern: "/v1/ops/keys", action: access.KeysRead, parameters: append(pageParameters(), "merchant"), handle: s.listKeys},
		{method: http.MethodPost, pattern: "/v1/ops/keys", action: access.KeysWrite, handle: s.createKey},
		{method: http.MethodPost, pattern: "/v1/ops/keys/{id}/rotate", action: access.KeysRotate, hides: true, handle: s.rotateKey},
		{method: http.MethodPost, pattern: "/v1/ops/keys/{id}/approve", action: access.KeysWrite, hides: true, handle: s.approveKey},
		{method: http.MethodPost, pattern: "/v1/ops/keys/{id}/pin", action: access.KeysWrite, hides: true, handle: s.pinKey},
		{method: http.MethodDelete, pattern: "/v1/ops/keys/{id}", action: access.KeysWrite, hides: true, handle: s.revokeKey},
		{method: http.MethodGet, pattern: "/v1/ops/key_acts", action: access.KeysRead, parameters: append(pageParameters(), "key"), handle: s.listKeyActs},
		{method: http.MethodPost, pattern: "/v1/ops/authz/explain", action: access.AuthzExplain, handle: s.explainAuthorization},
		// What the posts below do is done once however often they are repeated, so they take no Idempotency-Key.
		{method: http.MethodGet, pattern: "/v1/ops/parked", action: access.DeadLettersRead, parameters: []string{"consumer", "fingerprint", "limit", "cursor"}, handle: s.listBlockedKeys},
		{method: http.MethodGet, pattern: "/v1/ops/parked/groups", action: access.DeadLettersRead, handle: s.groupBlockedKeys},
		{method: http.MethodPost, pattern: "/v1/ops/parked/replay", action: access.DeadLettersReplay, handle: s.replayBlockedKeys},
		{method: http.MethodGet, pattern: "/v1/ops/parked/{id}", action: access.DeadLettersRead, hides: true, handle: s.getBlockedKey},
		{method: http.MethodPost, pattern: "/v1/ops/parked/{id}/replay", action: access.DeadLettersReplay, hides: true, handle: s.replayBlockedKey},
		{method: http.MethodPost, pattern: "/v1/ops/parked/{id}/discard", action: access.DeadLettersDiscard, hides: true, handle: s.discardDeadLetters},
		{method: http.MethodGet, pattern: "/openapi.yaml", public: true, parameters: []string{"version"}, handle: s.getContract},
		{method: http.MethodGet, pattern: "/docs", public: true, handle: s.getReader},
		{method: http.MethodGet, pattern: "/", public: true, handle: s.getRoot},
		{method: http.MethodGet, pattern: "/docs/guides/{guide}", public: true, handle: s.getGuide},
		{method: http.MethodGet, pattern: "/docs/{asset}", public: true, handle: s.getReaderAsset},
		{method: http.MethodGet, pattern: "/problems", public: true, handle: s.listProblems},
		{method: http.MethodGet, pattern: "/problems/{code}", public: true, handle: s.getProblem},
	}, s.reportRoutes()...)
}

// call is one permitted request.
type call struct {
	w         *recorder
	r         *http.Request
	principal access.Principal
	scope     access.Scope
	// confidential: the policies let this caller see what is masked for others.
	confidential bool
	query        url.Values
	began        time.Time
	span         trace.Span
	// streaming has no deadline for the whole answer.
	streaming context.Context //nolint:containedctx // of this one request
	wait      time.Duration   // preferred; 0 without
	placed    func(made bool) // of a route that admits: the request was accepted; a payment was made, or is replayed
	counted   func() error    // set once the key was counted against the unauthenticated limits: their refusal, or nil
}

// check refuses a table with a route that anybody could call.
func check(routes []route) error {
	for _, rt := range routes {
		ways := 0
		for _, way := range []bool{rt.signed, rt.public, rt.action.Known()} {
			if way {
				ways++
			}
		}
		if ways != 1 {
			return fmt.Errorf("api: the route %s %s needs an action that the policies know, or a signed body, or to be public", rt.method, rt.pattern)
		}
	}
	return nil
}

func (s *server) router() chi.Router {
	mux := chi.NewRouter()
	mux.Use(s.observe)
	for _, rt := range s.routes() {
		h := s.serve(rt)
		mux.Method(rt.method, rt.pattern, h)
		if rt.method == http.MethodGet {
			mux.Method(http.MethodHead, rt.pattern, h)
		}
	}
	mux.NotFound(func(w http.ResponseWriter, r *http.Request) {
		s.refuse(r.Context(), recorderOf(w), s.limits.refused(&call{w: recorderOf(w), r: r}, nothingAt(r.URL.Path)))
	})
	mux.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		// Of the paths that fit, the most literal one is meant: /parked/replay, not /parked/{id}.
		var allowed []string
		fewest := math.MaxInt
		for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete} {
			found := chi.NewRouteContext()
			if !mux.Match(found, m, r.URL.Path) {
				continue
			}
			n := strings.Count(found.RoutePattern(), "{")
			if n < fewest {
				fewest, allowed = n, nil
			}
			if n == fewest {
				allowed = append(allowed, m)
			}
		}
		methods := strings.Join(allowed, ", ")
		w.Header().Set("Allow", methods)
		s.refuse(r.Context(), recorderOf(w), s.limits.refused(&call{w: recorderOf(w), r: r}, payment.Errorf(codeMethodNotAllowed, "This path does not take this method, but %s.", methods)))
	})
	return mux
}

// serve asks who calls and whether that is permitted before it looks at
// anything else that the request holds.
func (s *server) serve(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := recorderOf(w)
		rec.route = rt.pattern
		c := &call{w: rec, r: r, began: time.Now(), placed: func(bool) {}}
		if rt.waits {
			c.wait = preferredWait(r.Header.Values("Prefer"))
		}
		defer func() {
			if c.span == nil { // it was refused before anything was asked for it
				c.span = s.span(c)
			}
			end(c.span, rec)
		}()
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout+c.wait)
		defer cancel()
		answer := func() error { return s.answer(ctx, rt, c) }
		var err error
		if rt.admits {
			err = s.Admission.admitted(c, answer)
		} else {
			err = answer()
		}
		if err != nil && c.principal.KeyID == "" && !errors.Is(err, errOverloaded) {
			err = s.limits.refused(c, err)
		}
		if err != nil {
			s.refuse(ctx, rec, err)
		}
	})
}

func (s *server) answer(ctx context.Context, rt route, c *call) (err error) {
	c.streaming = c.r.Context()
	if !rt.signed && !rt.public {
		err = s.permit(ctx, rt, c)
		ctx, c.streaming = c.scope.Bound(ctx), c.scope.Bound(c.streaming)
	}
	c.span = s.span(c) // once it is known whose request it is
	ctx, c.streaming = trace.ContextWithSpan(ctx, c.span), trace.ContextWithSpan(c.streaming, c.span)
	if err == nil {
		err = s.chooseVersion(c)
	}
	if err == nil && !plainText(c.r.URL.Path) { // which the database would refuse with an error
		err = payment.Errorf(payment.CodeNotFound, "There is no such object.")
	}
	if err == nil {
		err = c.readQuery(rt)
	}
	if err == nil && rt.readsAfter {
		err = s.readAfter(ctx, c)
	}
	if err == nil {
		err = namingID(rt, c, rt.handle(ctx, c))
	}
	return err
}

func (s *server) permit(ctx context.Context, rt route, c *call) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	principal, err := s.Authenticator.AuthenticateWithin(ctx, bearer(c.r.Header.Values("Authorization")), peer(c.r), s.limits.lookup(c))
	if err != nil {
		return withoutKey(c.r.Header.Values("Authorization"), err)
	}
	c.principal = principal
	c.w.by(c)
	c.w.of(c)
	if err := s.limits.keys.take(c.w.Header(), principal.KeyID); err != nil {
		return err
	}
	decision, err := s.Authorizer.Authorize(ctx, principal, rt.action)
	c.scope, c.confidential = decision.Scope, decision.Confidential
	s.debug(ctx, c.w, "authorization decided", "role", principal.Role, "action", rt.action, "allowed", err == nil, "confidential", c.confidential)
	var refusal *payment.Error
	if rt.hides && errors.As(err, &refusal) && refusal.Code == payment.CodeForbidden {
		return payment.Errorf(payment.CodeNotFound, "There is no such object.").Because(err)
	}
	return err
}

func (c *call) readQuery(rt route) (err error) {
	// Not URL.Query, which drops what it cannot read.
	if c.query, err = url.ParseQuery(c.r.URL.RawQuery); err != nil {
		return queryError("/query", "query_invalid", "must be parameters of the form name=value, percent-encoded")
	}
	if rt.ownParameters {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(c.query)) { // the same error each time
		values := c.query[name]
		if !slices.Contains(rt.parameters, name) {
			return queryErrors(payment.UnknownParameter(name, rt.parameters))
		}
		if len(values) != 1 {
			return queryError("/query/"+name, "parameter_repeated", "must be given once")
		}
	}
	return nil
}

func queryError(pointer, code, message string) error {
	return queryErrors(payment.FieldError{Pointer: pointer, Code: code, Message: message})
}

func queryErrors(fields ...payment.FieldError) error {
	return &payment.Error{Code: payment.CodeInvalid, Message: "The query is not valid.", Fields: fields}
}

// askedMerchant is the query's, or empty without one.
func (c *call) askedMerchant() (string, error) {
	id := c.query.Get("merchant")
	if c.query.Has("merchant") && !payment.ValidID(payment.PrefixMerchant, id) {
		return "", queryError("/query/merchant", "id_invalid", "must be a merchant's id (mer_…)")
	}
	return id, nil
}

// peer is the address of the connection: what a header says of it anybody can write.
func peer(r *http.Request) netip.Addr {
	a, _ := netip.ParseAddrPort(r.RemoteAddr) // the zero address is in no network
	return a.Addr()
}
