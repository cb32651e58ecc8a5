package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"payments/client"
)

// service stands for the payments service, with answers as its document shows them.
func service() *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/payments", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Read-After", "MSBtZXJfMDFt")
		if r.Header.Get("Idempotency-Key") == "order-A-1001" {
			w.Header().Set("Idempotent-Replayed", "true")
		}
		_, _ = io.WriteString(w, `{"id": "pay_01m8702cvkfn8aqyvxe63m804e", "object": "payment", "status": "succeeded", "amount": 4998, "currency": "EUR"}`)
	})
	mux.HandleFunc("POST /v1/payments/{id}/cancel", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"type": "/problems/action_not_allowed", "status": 409, "code": "action_not_allowed",
			"title": "The payment's state does not allow this", "detail": "The payment can no longer be canceled.",
			"request_id": "req_01m8702cxwf0xvsswam8j18mgk", "allowed_actions": ["refund"]}`)
	})
	mux.HandleFunc("GET /v1/payments", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("cursor") == "" {
			_, _ = io.WriteString(w, `{"object": "list", "data": [{"id": "pay_1"}, {"id": "pay_2"}], "has_more": true, "next_cursor": "c"}`)
			return
		}
		_, _ = io.WriteString(w, `{"object": "list", "data": [{"id": "pay_3"}], "has_more": false, "next_cursor": null}`)
	})
	return httptest.NewServer(mux)
}

func Example() {
	s := service()
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	c, err := client.New(s.URL, os.Getenv("PAYMENTS_API_KEY"))
	if err != nil {
		fmt.Println(err)
		return
	}
	paid, err := c.CreatePayment(ctx, client.PaymentRequest{
		Amount: 4998, Currency: client.CurrencyEUR, PaymentMethod: "pm_card_visa",
		Customer: client.Customer{Reference: "cust-42"},
		Order:    client.Order{Reference: "A-1001", Lines: []client.OrderLine{{SKU: "TSHIRT-M", Quantity: 2, UnitAmount: 2499}}},
	}, &client.CreatePaymentParams{Prefer: client.Wait(10 * time.Second)})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(paid.Value.ID, paid.Value.Status)
	// Output: pay_01m8702cvkfn8aqyvxe63m804e succeeded
}

// A key of one's own outlives the process: kept with the order before the call, it
// makes the call the same one after a crash.
func ExampleClient_CreatePayment_ownKey() {
	s := service()
	defer s.Close()
	c, err := client.New(s.URL, "sk_test_1")
	if err != nil {
		fmt.Println(err)
		return
	}
	a, err := c.CreatePayment(context.Background(), client.PaymentRequest{}, &client.CreatePaymentParams{IdempotencyKey: "order-A-1001"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(a.Replayed(), a.IdempotencyKey)
	// Output: true order-A-1001
}

func ExampleProblemError() {
	s := service()
	defer s.Close()
	c, err := client.New(s.URL, "sk_test_1")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = c.CancelPayment(context.Background(), "pay_01m8702cvkfn8aqyvxe63m804e", nil)
	if p, ok := errors.AsType[*client.ProblemError](err); ok && p.Code == client.ProblemCodeActionNotAllowed {
		fmt.Println(p.AllowedActions)
	}
	fmt.Println(err)
	// Output:
	// [refund]
	// payments: 409 action_not_allowed: The payment can no longer be canceled. [req_01m8702cxwf0xvsswam8j18mgk]
}

func ExampleClient_Payments() {
	s := service()
	defer s.Close()
	c, err := client.New(s.URL, "sk_test_1")
	if err != nil {
		fmt.Println(err)
		return
	}
	for p, err := range c.Payments(context.Background(), &client.ListPaymentsParams{Status: []client.PaymentStatus{client.PaymentStatusSucceeded}}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(p.ID)
	}
	// Output:
	// pay_1
	// pay_2
	// pay_3
}

// What was written is read at once, however far the read model is behind.
func ExampleAnswer_ReadAfter() {
	s := service()
	defer s.Close()
	c, err := client.New(s.URL, "sk_test_1")
	if err != nil {
		fmt.Println(err)
		return
	}
	paid, err := c.CreatePayment(context.Background(), client.PaymentRequest{}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	page, err := c.ListPayments(context.Background(), &client.ListPaymentsParams{ReadAfter: paid.ReadAfter(), Limit: 10})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(page.Value.Data), page.Value.HasMore)
	// Output: 2 true
}
