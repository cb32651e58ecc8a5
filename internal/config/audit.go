package config

import "time"

// Audit is what the audit needs beside the databases.
type Audit struct {
	Provider     string // simulator or stripe
	ProviderURL  string
	StripeKey    string
	StripeURL    string
	KafkaBrokers []string // with the event log alone
	KafkaPrefix  string
	Kafka        Kafka
}

// AuditTimeout is how long an answer of the provider may take: a page of its list is more
// than an operation.
const AuditTimeout = time.Minute

// LoadAudit reads the variables of the provider, and those of Kafka if the event log is
// to be read.
func LoadAudit(lookup Lookup, log bool) (Audit, error) {
	r := &reader{lookup: lookup}
	a := Audit{Provider: r.choice("PAYMENTS_PROVIDER", ProviderSimulator, ProviderStripe), StripeURL: r.httpURL("PAYMENTS_STRIPE_URL", optional)}
	a.ProviderURL = r.httpURL("PAYMENTS_PROVIDER_URL", need(a.Provider == ProviderSimulator))
	a.StripeKey = r.stripeKey("PAYMENTS_STRIPE_KEY", need(a.Provider == ProviderStripe))
	if log {
		a.KafkaBrokers = r.addresses("PAYMENTS_KAFKA_BROKERS")
		a.KafkaPrefix = r.kafkaPrefix("PAYMENTS_KAFKA_PREFIX")
		a.Kafka = r.kafka()
	}
	return a, r.err()
}
