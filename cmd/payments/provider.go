package main

import (
	"time"

	"payments/internal/config"
	"payments/internal/provider"
	"payments/internal/provider/stripe"
	"payments/internal/provider/webhook"
)

// newProvider has at most calls connections to the bank; 0 is the default.
func newProvider(b config.Bank, calls int) (provider.Provider, error) {
	if b.Provider == config.ProviderStripe {
		c, err := stripe.New(b.StripeKey, stripe.Config{URL: b.StripeURL, Timeout: b.ProviderTimeout, MaxConns: calls, Now: time.Now})
		if err != nil {
			return nil, usagef("PAYMENTS_STRIPE_URL: %w", err)
		}
		return c, nil
	}
	bank, err := provider.NewHTTP(b.ProviderURL, provider.HTTPConfig{Timeout: b.ProviderTimeout, MaxConns: calls})
	if err != nil {
		return nil, usagef("PAYMENTS_PROVIDER_URL: %w", err)
	}
	return bank, nil
}

// providerWebhooks knows the configured provider alone, and none without secrets.
func (s *service) providerWebhooks() (*webhook.Receiver, error) {
	var readers []*provider.Webhooks
	if len(s.WebhookSecrets) > 0 {
		read := provider.SimulatorWebhooks
		if s.Provider == config.ProviderStripe {
			read = stripe.Webhooks
		}
		reader, err := read(s.WebhookSecrets, time.Now)
		if err != nil {
			return nil, usagef("PAYMENTS_PROVIDER_WEBHOOK_SECRETS: %w", err)
		}
		readers = append(readers, reader)
	}
	return webhook.NewReceiver(s.write, webhook.Handler{Matters: s.orders.Matters, Handle: s.orders.Notified}, s.registry, readers...)
}
