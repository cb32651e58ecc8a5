package stripe

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v85/webhook"

	"payments/internal/provider"
)

func TestStripesOwnSignaturesAreVerified(t *testing.T) {
	const live, event = "whsec_live", `{"id":"evt_1","object":"event","api_version":"2014-01-01","type":"payment_intent.succeeded",
		"data":{"object":{"id":"pi_1","object":"payment_intent","metadata":{"reference":"pay_1","key":"k","type":"authorization","capture_key":"c"}}}}`
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	w, err := Webhooks([]string{"whsec_next", live}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	signed := func(at time.Time, secret string) http.Header {
		p := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: []byte(event), Secret: secret, Timestamp: at})
		return http.Header{"Stripe-Signature": {p.Header}}
	}
	got, err := w.Read(signed(now, live), []byte(event))
	want := provider.Notification{
		Provider: "stripe", ID: "evt_1", Type: "payment_intent.succeeded", Reference: "pay_1", Key: "c",
		Operation: provider.Capture, OperationID: "pi_1", Authorization: "pi_1",
	}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if _, err := w.Read(signed(now, "whsec_other"), []byte(event)); !errors.Is(err, provider.ErrSignature) {
		t.Errorf("signed by another: %v", err)
	}
	if _, err := w.Read(signed(now.Add(-6*time.Minute), live), []byte(event)); !errors.Is(err, provider.ErrSignatureTime) {
		t.Errorf("signed long ago: %v", err)
	}
	about, err := w.Read(func() (http.Header, []byte) {
		const other = `{"id":"evt_2","type":"payout.paid","data":{"object":{"id":"po_1"}}}`
		p := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: []byte(other), Secret: live, Timestamp: now})
		return http.Header{"Stripe-Signature": {p.Header}}, []byte(other)
	}())
	if err != nil || about.Reference != "" || about.ID != "evt_2" {
		t.Errorf("an event about none of our payments: %+v, %v", about, err)
	}
}

func TestWhatAnEventIsAbout(t *testing.T) {
	const intent, refund = `"type":"authorization","key":"k"`, `"type":"refund","key":"k"`
	for _, tc := range []struct {
		event, metadata string
		operation       provider.OperationType
		declined        bool
	}{
		{"payment_intent.amount_capturable_updated", intent, provider.Authorization, false},
		{"payment_intent.payment_failed", intent, provider.Authorization, true},
		{"payment_intent.canceled", intent, provider.Void, false},
		{"charge.succeeded", intent, provider.Authorization, false},
		{"charge.failed", intent, provider.Authorization, true},
		{"refund.created", refund, provider.Refund, false},
		{"refund.failed", refund, provider.Refund, true},
	} {
		n, err := parseEvent([]byte(`{"id":"evt_1","type":"` + tc.event + `","data":{"object":{"id":"x_1","metadata":{"reference":"pay_1",` + tc.metadata + `}}}}`))
		want := provider.Notification{
			ID: "evt_1", Type: tc.event, Reference: "pay_1", Key: "k", Operation: tc.operation, OperationID: "x_1", Declined: tc.declined,
		}
		if tc.operation == provider.Void {
			want.Key = "" // its metadata name the authorization's
		}
		if err != nil || n != want {
			t.Errorf("%s: %+v, %v", tc.event, n, err)
		}
	}
}
