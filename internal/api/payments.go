package api

import (
	"context"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"payments/internal/access"
	"payments/internal/payment"
	"payments/internal/readmodel"
)

func (s *server) getPayment(ctx context.Context, c *call) error {
	expand, err := readmodel.ParseExpand(c.query)
	if err != nil {
		return err
	}
	p, err := s.getProjected(ctx, c, chi.URLParam(c.r, "id"), expand)
	if err != nil {
		return err
	}
	items, err := s.viewResources(ctx, c, []readmodel.Payment{p}, expand)
	if err != nil {
		return err
	}
	return s.ok(ctx, c, items[0])
}

// getProjected reads the payment as it is projected. One that is committed and not projected yet
// is read from the write model, so that no GET of a payment waits, and none answers 404 for a
// payment that exists, even while Kafka is away. That answer brings a Read-After: until the
// projection has passed it, a read without it may see an older state. What a payment is expanded
// with is in the read model alone, and is waited for.
func (s *server) getProjected(ctx context.Context, c *call, id string, expand readmodel.Expand) (p readmodel.Payment, err error) {
	get := func() error {
		p, err = s.Payments.Get(ctx, c.scope, id)
		return err
	}
	if expand != (readmodel.Expand{}) {
		err := s.projected(ctx, c, id, get)
		return p, err
	}
	if err := get(); !notFound(err) {
		return p, err
	}
	written, err := s.written(ctx, c, id)
	if err != nil {
		return readmodel.Payment{}, err
	}
	c.w.Header().Set(headerReadAfter, position(written).Token())
	return readmodel.Payment(written), nil
}

func (s *server) listPayments(ctx context.Context, c *call) error {
	cursor, err := s.after(c)
	if err != nil {
		return err
	}
	asked := c.query
	if cursor != nil {
		asked = without(asked, "cursor")
	}
	f, err := readmodel.ParseFilter(asked)
	if err != nil {
		return err
	}
	if f.PaymentMethods != nil {
		f.PaymentMethods = s.Methods.Fingerprints(f.PaymentMethods[0])
	}
	if c.wantsCSV() {
		return s.exportPayments(c, f)
	}
	if cursor != nil {
		var ok bool
		if f.After, ok = readmodel.CursorOf(cursor); !ok {
			return cursorInvalid()
		}
	}
	page, err := s.Payments.List(ctx, c.scope, f)
	if err != nil {
		return err
	}
	items, err := s.viewResources(ctx, c, page.Payments, f.Expand)
	if err != nil {
		return err
	}
	l := newList(items)
	if l.HasMore = page.Next != nil; l.HasMore {
		l.NextCursor = s.behind(c, page.Next.Fields()...)
	}
	if f.Count {
		n, err := s.Payments.Count(ctx, c.scope, f)
		if err != nil {
			return err
		}
		l.Count = &countResource{n.Value, "estimated", n.AtLeast}
		if n.Exact {
			l.Count.Kind = "exact"
		}
	}
	return s.ok(ctx, c, l)
}

func without(query map[string][]string, name string) map[string][]string {
	rest := make(map[string][]string, len(query))
	for n, values := range query {
		if n != name {
			rest[n] = values
		}
	}
	return rest
}

// viewResources asks for each expansion as its own route does.
func (s *server) viewResources(ctx context.Context, c *call, payments []readmodel.Payment, expand readmodel.Expand) ([]paymentResource, error) {
	items := make([]paymentResource, len(payments))
	var err error
	for i, p := range payments {
		if items[i], err = s.viewResource(c, p); err != nil {
			return nil, err
		}
	}
	if expand == (readmodel.Expand{}) {
		return items, nil
	}
	for action, wanted := range map[access.Action]bool{access.PaymentsTimeline: expand.Timeline, access.RefundsList: expand.Refunds} {
		if !wanted {
			continue
		}
		decision, err := s.Authorizer.Authorize(ctx, c.principal, action)
		if err != nil {
			return nil, err
		}
		if decision.Scope != c.scope {
			return nil, payment.Errorf(payment.CodeForbidden, "The role of this API key does not permit this expansion.")
		}
	}
	expanded, err := s.Payments.Expand(ctx, payments, expand)
	if err != nil {
		return nil, err
	}
	for i := range items {
		x := expanded[items[i].ID]
		if expand.Timeline {
			l := listOf(x.Timeline, newEntryResource)
			l.HasMore = x.MoreTimeline
			items[i].Timeline = &l
		}
		if expand.Refunds {
			l := listOf(x.Refunds, newRefundResource)
			l.HasMore = x.MoreRefunds
			items[i].Refunds = &l
		}
	}
	return items, nil
}

func paymentColumns() []string {
	return []string{
		"id", "status", "amount", "currency", "currency_exponent", "amount_captured", "amount_refunded", "payment_method", "capture_method",
		"customer_reference", "customer_email", "order_id", "order_reference", "failure_code", "failure_step", "failure_message", "created_at", "updated_at",
	}
}

func (s *server) exportPayments(c *call, f readmodel.Filter) error {
	if f.Count || f.Expand != (readmodel.Expand{}) {
		return queryError("/query", "parameter_unknown", "has count or expand, and an export has neither")
	}
	f.Limit = exportPage
	return s.export(c, "payments", paymentColumns(), func(ctx context.Context) (rows [][]string, more bool, err error) {
		page, err := s.Payments.List(ctx, c.scope, f)
		if err != nil {
			return nil, false, err
		}
		for _, p := range page.Payments {
			r, err := s.viewResource(c, p)
			if err != nil {
				return nil, false, err
			}
			rows = append(rows, r.row())
		}
		f.After = page.Next
		return rows, page.Next != nil, nil
	})
}

func (r paymentResource) row() []string {
	var email string
	var failure payment.Failure
	if r.Customer.Email != nil {
		email = *r.Customer.Email
	}
	if r.Failure != nil {
		failure = *r.Failure
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	return []string{
		r.ID, string(r.Status), number(r.Amount), r.Currency, strconv.Itoa(r.CurrencyExponent), number(r.AmountCaptured), number(r.AmountRefunded),
		r.PaymentMethod, string(r.CaptureMethod), r.Customer.Reference, email, r.Order.ID, r.Order.Reference,
		failure.Code, failure.Step, failure.Message, r.CreatedAt.Format(time.RFC3339Nano), r.UpdatedAt.Format(time.RFC3339Nano),
	}
}

func (s *server) listRefunds(ctx context.Context, c *call) error {
	id := chi.URLParam(c.r, "id")
	if c.wantsCSV() {
		return s.exportRefunds(c, id)
	}
	after, limit, err := s.page(c, payment.PrefixRefund)
	if err != nil {
		return err
	}
	var refunds []readmodel.Refund
	err = s.projected(ctx, c, id, func() (err error) {
		refunds, err = s.Payments.Refunds(ctx, c.scope, id, after, limit+1)
		return err
	})
	if err != nil {
		return err
	}
	return s.ok(ctx, c, pageOf(s, c, refunds, limit, newRefundResource, func(r readmodel.Refund) string { return r.ID }))
}

func newRefundResource(r readmodel.Refund) refundResource {
	return refundResource{
		ID: r.ID, Object: "refund", Payment: r.PaymentID, Amount: r.Amount, Currency: r.Currency, Reason: given(r.Reason),
		Status: r.Status, Failure: newFailureResource(r.FailureCode), CreatedAt: shown(r.CreatedAt), UpdatedAt: shown(r.UpdatedAt),
	}
}

func (s *server) exportRefunds(c *call, paymentID string) error {
	after := ""
	// A CSV is flat, and so the same in each version.
	columns := []string{"id", "payment", "amount", "currency", "reason", "status", "failure_code", "created_at", "updated_at"}
	return s.export(c, "refunds", columns, func(ctx context.Context) (rows [][]string, more bool, err error) {
		var refunds []readmodel.Refund
		err = s.projected(ctx, c, paymentID, func() (err error) {
			refunds, err = s.Payments.Refunds(ctx, c.scope, paymentID, after, exportPage)
			return err
		})
		for _, r := range refunds {
			rows = append(rows, []string{
				r.ID, r.PaymentID, strconv.FormatInt(r.Amount, 10), r.Currency, r.Reason, string(r.Status), r.FailureCode,
				shown(r.CreatedAt).Format(time.RFC3339Nano), shown(r.UpdatedAt).Format(time.RFC3339Nano),
			})
			after = r.ID
		}
		return rows, len(refunds) == exportPage, err
	})
}
