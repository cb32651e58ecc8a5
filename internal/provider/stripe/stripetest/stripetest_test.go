package stripetest

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v85"
	"github.com/stripe/stripe-go/v85/webhook"
)

func client(t *testing.T, s *Server, key string) *stripe.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	backend := stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{
		URL: &s.URL, HTTPClient: &http.Client{Transport: transport}, MaxNetworkRetries: new(int64),
		LeveledLogger: &stripe.LeveledLogger{Level: stripe.LevelNull}, EnableTelemetry: new(bool),
	})
	return stripe.NewClient(key, stripe.WithBackends(&stripe.Backends{API: backend}))
}

// held makes an authorized PaymentIntent.
func held(t *testing.T, c *stripe.Client, reference string) *stripe.PaymentIntent {
	t.Helper()
	i, err := c.V1PaymentIntents.Create(t.Context(), &stripe.PaymentIntentCreateParams{
		Params: stripe.Params{IdempotencyKey: new("key of " + reference)},
		Amount: new(int64(4998)), Currency: new("eur"), CaptureMethod: new("manual"), Confirm: new(true),
		PaymentMethod: new("pm_card_visa"), Metadata: map[string]string{"reference": reference},
	})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func codeOf(err error) stripe.ErrorCode {
	if e, ok := errors.AsType[*stripe.Error](err); ok {
		return e.Code
	}
	return ""
}

// Each member that the stand-in answers is one that Stripe's own library reads.
func TestTheObjectsHaveStripesMembers(t *testing.T) {
	for _, pair := range [][2]any{
		{intent{}, stripe.PaymentIntent{}}, {charge{}, stripe.Charge{}}, {refund{}, stripe.Refund{}},
		{dispute{}, stripe.Dispute{}}, {evidenceDetails{}, stripe.DisputeEvidenceDetails{}}, {event{}, stripe.Event{}},
	} {
		ours, theirs := members(pair[0]), members(pair[1])
		for name := range ours {
			if !theirs[name] {
				t.Errorf("%T has no member %q", pair[1], name)
			}
		}
	}
}

func members(of any) map[string]bool {
	names := map[string]bool{}
	for f := range reflect.TypeOf(of).Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			names[name] = true
		}
	}
	return names
}

func TestAccountsKnowNothingOfEachOther(t *testing.T) {
	s := New(t)
	a := s.Account("sk_a")
	s.Account("sk_b")
	mine, other := client(t, s, "sk_a"), client(t, s, "sk_b")
	i := held(t, mine, "pay_1")
	if _, err := other.V1PaymentIntents.Retrieve(t.Context(), i.ID, nil); codeOf(err) != stripe.ErrorCodeResourceMissing {
		t.Errorf("another account's intent: %v", err)
	}
	a.AddKey("sk_a2")
	s.RevokeKey("sk_a")
	if got, err := client(t, s, "sk_a2").V1Accounts.Retrieve(t.Context(), nil); err != nil || got.ID != a.ID {
		t.Errorf("the account by its new key: %v, %v", got, err)
	}
	var e *stripe.Error
	if _, err := mine.V1Accounts.Retrieve(t.Context(), nil); !errors.As(err, &e) || e.HTTPStatusCode != http.StatusUnauthorized {
		t.Errorf("by a revoked key: %v", err)
	}
}

func TestAKeyIsOneRequestUntilItIsForgotten(t *testing.T) {
	s := New(t)
	a := s.Account("sk_a")
	c := client(t, s, "sk_a")
	first, again := held(t, c, "pay_1"), held(t, c, "pay_1")
	if first.ID != again.ID {
		t.Errorf("one key made %s and %s", first.ID, again.ID)
	}
	a.ForgetKeys()
	if third := held(t, c, "pay_1"); third.ID == first.ID {
		t.Error("a forgotten key is still known")
	}
}

func TestListsAndSearchesArePaged(t *testing.T) {
	s := New(t)
	a := s.Account("sk_a")
	c := client(t, s, "sk_a")
	s.SetPageSize(2)
	at := time.Now().Add(-time.Hour)
	a.Seed(5, at)
	i := held(t, c, "pay_1")
	n := 0
	for _, err := range c.V1PaymentIntents.List(t.Context(), &stripe.PaymentIntentListParams{}).All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 6 || len(s.Requests()) != 4 {
		t.Errorf("%d intents by %v", n, s.Requests())
	}
	n = 0
	for _, err := range c.V1PaymentIntents.List(t.Context(), &stripe.PaymentIntentListParams{
		CreatedRange: &stripe.RangeQueryParams{LesserThanOrEqual: at.Unix()},
	}).All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 5 {
		t.Errorf("%d intents of that time", n)
	}
	search := func() (ids []string) {
		for found, err := range c.V1PaymentIntents.Search(t.Context(), &stripe.PaymentIntentSearchParams{
			SearchParams: stripe.SearchParams{Query: `metadata["reference"]:"pay_1"`},
		}).All(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, found.ID)
		}
		return ids
	}
	if got := search(); !slices.Equal(got, []string{i.ID}) {
		t.Errorf("found %v", got)
	}
	a.ForgetKeys()
	thaw := a.FreezeSearch()
	late := held(t, c, "pay_1")
	if got := search(); !slices.Equal(got, []string{i.ID}) {
		t.Errorf("the index that stands still has %v", got)
	}
	thaw()
	if got := search(); !slices.Equal(got, []string{late.ID, i.ID}) {
		t.Errorf("the index has %v", got)
	}
}

// Each change at the provider's side is seen by its objects, and told by signed events.
func TestChangesAtTheProvidersSide(t *testing.T) {
	const secret = "whsec_a"
	s := New(t)
	a := s.Account("sk_a")
	c := client(t, s, "sk_a")
	var told []string
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, r.ContentLength)
		if n, err := r.Body.Read(body); n != len(body) {
			t.Error(err)
		}
		e, err := webhook.ConstructEvent(body, r.Header.Get("Stripe-Signature"), secret)
		if err != nil {
			t.Error(err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		told = append(told, string(e.Type))
	}))
	defer endpoint.Close()
	expect := func(what string, types ...string) {
		t.Helper()
		told = nil
		if err := a.Deliver(t.Context(), endpoint.URL, secret); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(told, types) {
			t.Errorf("%s told %v", what, told)
		}
	}

	i := held(t, c, "pay_1")
	expect("an authorization", "payment_intent.created", "charge.succeeded", "payment_intent.amount_capturable_updated")
	a.CaptureOutside(i.ID, 4000)
	expect("a capture", "charge.captured", "payment_intent.succeeded")
	ch := a.Intents("pay_1")[0].LatestCharge.ID
	if got := a.Charge(ch); got.AmountCaptured != 4000 || got.AmountRefunded != 998 {
		t.Errorf("captured: %+v", got)
	}
	re := a.RefundOutside(ch, 1000)
	expect("a refund", "refund.created", "charge.refunded")
	a.FailRefund(re, "lost_or_stolen_card")
	expect("a refund that failed", "refund.failed", "charge.refund.updated")
	if a.Refunded() != 0 || a.Charge(ch).AmountRefunded != 998 {
		t.Errorf("after it failed, %d are refunded", a.Refunded())
	}
	due := time.Now().Add(7 * 24 * time.Hour)
	du := a.OpenDispute(ch, 0, "fraudulent", due)
	expect("a dispute", "charge.dispute.created", "charge.dispute.funds_withdrawn")
	if got, err := c.V1Disputes.Retrieve(t.Context(), du, nil); err != nil || got.Amount != 4000 || got.EvidenceDetails.DueBy != due.Unix() || got.PaymentIntent.ID != i.ID {
		t.Errorf("the dispute: %+v, %v", got, err)
	}
	_, err := c.V1Refunds.Create(t.Context(), &stripe.RefundCreateParams{Charge: &ch})
	if codeOf(err) != stripe.ErrorCodeChargeDisputed {
		t.Errorf("a refund of what is disputed: %v", err)
	}
	a.CloseDispute(du, "won")
	expect("a dispute that was won", "charge.dispute.closed", "charge.dispute.funds_reinstated")

	expired, canceled := held(t, c, "pay_2"), held(t, c, "pay_3")
	a.Take()
	a.Expire(expired.ID)
	expect("an expiry", "charge.expired", "payment_intent.canceled")
	a.CancelOutside(canceled.ID, "fraudulent")
	expect("a cancellation", "charge.refunded", "payment_intent.canceled")
	if got := a.Intents("pay_2")[0]; got.CancellationReason != stripe.PaymentIntentCancellationReasonAutomatic || got.Status != stripe.PaymentIntentStatusCanceled {
		t.Errorf("expired: %+v", got)
	}
	a.RefundsPend(true)
	re = a.RefundOutside(ch, 1000)
	if a.Refunds(ch)[1].Status != stripe.RefundStatusPending {
		t.Errorf("%+v", a.Refunds(ch)[1])
	}
	a.SettleRefund(re)
	expect("a refund that settled", "refund.created", "charge.refunded", "refund.updated", "charge.refund.updated")
}

func TestFaultsStrikeWhatTheyName(t *testing.T) {
	s := New(t)
	a := s.Account("sk_a")
	c := client(t, s, "sk_a")
	i := held(t, c, "pay_1")
	heal := s.Break(Fault{Method: http.MethodGet, Path: "/v1/payment_intents/*", Status: http.StatusForbidden})
	var e *stripe.Error
	if _, err := c.V1PaymentIntents.Retrieve(t.Context(), i.ID, nil); !errors.As(err, &e) || e.HTTPStatusCode != http.StatusForbidden {
		t.Errorf("a read: %v", err)
	}
	heal()
	if _, err := c.V1PaymentIntents.Retrieve(t.Context(), i.ID, nil); err != nil {
		t.Errorf("a read of the healed: %v", err)
	}
	s.Break(Fault{Method: http.MethodPost, Path: "/v1/payment_intents/*/capture", Applied: true, Status: http.StatusBadGateway, Times: 1})
	if _, err := c.V1PaymentIntents.Capture(t.Context(), i.ID, nil); err == nil {
		t.Error("a capture was answered")
	}
	if got := a.Intents("pay_1")[0].Status; got != stripe.PaymentIntentStatusSucceeded {
		t.Errorf("it is %s", got)
	}
}
