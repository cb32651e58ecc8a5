// The first payment, as docs/walk.md shows it.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"payments/client"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := client.New(os.Getenv("PAYMENTS_URL"), os.Getenv("PAYMENTS_API_KEY"))
	if err != nil {
		return err
	}
	paid, err := c.CreatePayment(ctx, client.PaymentRequest{
		Amount: 4998, Currency: client.CurrencyEUR, PaymentMethod: "pm_card_visa",
		Customer: client.Customer{Reference: "cust-42", Email: "ada@example.com"},
		Order:    client.Order{Reference: "F-1", Lines: []client.OrderLine{{SKU: "TSHIRT-M", Quantity: 2, UnitAmount: 2499}}},
	}, &client.CreatePaymentParams{IdempotencyKey: "first-1", Prefer: client.Wait(10 * time.Second)})
	if err != nil {
		return err
	}
	fmt.Println(paid.Value.ID, paid.Value.Status, "replayed:", paid.Replayed())
	return nil
}
