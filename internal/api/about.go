package api

import (
	"context"
	"regexp"
	"unicode/utf8"

	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/readmodel"
)

// documentedReference is what the document's schema takes for one, which cannot tell a blank
// or an invisible character.
var documentedReference = regexp.MustCompile(`^[^\x00-\x1F\x7F-\x{9F}]{1,64}$`)

// askedAbout is the payment that the query names, in one of three ways, or nothing.
func (c *call) askedAbout() (a order.About, err error) {
	named := 0
	for _, p := range []struct {
		name  string
		to    *string
		check func(value string) (kept, code, message string)
	}{
		{"payment", &a.Payment, idOf(payment.PrefixPayment, "must be a payment's id (pay_…)")},
		{"order", &a.Order, idOf(payment.PrefixOrder, "must be an order's id (ord_…); its reference is the parameter reference")},
		{"reference", &a.Reference, func(value string) (string, string, string) {
			key, err := payment.BusinessKey(value, payment.MaxReference)
			switch {
			case err == nil:
				return key, "", ""
			case utf8.ValidString(value) && documentedReference.MatchString(value): // no order has it
				return value, "", ""
			}
			return "", "text_invalid", err.Error()
		}},
	} {
		if !c.query.Has(p.name) {
			continue
		}
		kept, code, message := p.check(c.query.Get(p.name))
		if code != "" {
			return a, queryError("/query/"+p.name, code, message)
		}
		if named++; named > 1 {
			return a, queryError("/query/"+p.name, "parameter_conflicting", "cannot be given with another of payment, order and reference")
		}
		*p.to = kept
	}
	return a, nil
}

func idOf(prefix, message string) func(string) (string, string, string) {
	return func(value string) (string, string, string) {
		if !payment.ValidID(prefix, value) {
			return "", "id_invalid", message
		}
		return value, "", ""
	}
}

// sagaSubjects is nil unless the query names a payment. Orders that have failed are found
// by their reference in the read model.
func (s *server) sagaSubjects(ctx context.Context, c *call) ([]order.SagaSubject, error) {
	about, err := c.askedAbout()
	if err != nil || about == (order.About{}) {
		return nil, err
	}
	operations := s.Orders.Operations()
	found, err := operations.Find(ctx, about)
	if err != nil {
		return nil, err
	}
	if about.Reference != "" {
		page, err := s.Payments.List(ctx, c.scope, readmodel.Filter{Order: []string{about.Reference}, Limit: readmodel.MaxLimit})
		if err != nil {
			return nil, err
		}
		var ids []string
		for _, p := range page.Payments {
			ids = append(ids, p.ID)
		}
		for _, p := range found {
			ids = append(ids, p.PaymentID)
		}
		if found, err = operations.FindPayments(ctx, ids); err != nil {
			return nil, err
		}
	}
	return operations.Subjects(ctx, found)
}

// askedDeliveries are the events of the query's payment, or nil without one.
func (s *server) askedDeliveries(ctx context.Context, c *call) ([]string, error) {
	if !c.query.Has("payment") {
		return nil, nil
	}
	about, err := c.askedAbout()
	if err != nil {
		return nil, err
	}
	entries, err := s.Payments.Timeline(ctx, c.scope, about.Payment, 0, maxPage)
	if err != nil && !notFound(err) {
		return nil, err
	}
	events := []string{} // none, which is not all
	for _, e := range entries {
		events = append(events, e.EventID)
	}
	return events, nil
}
