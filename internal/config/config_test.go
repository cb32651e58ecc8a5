package config

import (
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"payments/internal/secret"
)

func complete(t *testing.T) map[string]string {
	t.Helper()
	pepper, err := secret.NewPepperKeyset()
	if err != nil {
		t.Fatal(err)
	}
	encryption, err := secret.NewCipherKeyset()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"PAYMENTS_DATABASE_URL":      "postgres://app:hunter2@db:5432/payments",
		"PAYMENTS_KAFKA_BROKERS":     "a:9092, b:9093",
		"PAYMENTS_PROVIDER_URL":      "http://provider:8090/",
		"PAYMENTS_PEPPER_KEYSET":     pepper,
		"PAYMENTS_ENCRYPTION_KEYSET": encryption,
	}
}

const (
	stripeKey     = "sk_test_abcdefghijklmnopqrstuvwx"
	webhookSecret = "whsec_abcdefghijklmnopqrstuvwxyz"
)

func from(env map[string]string) Lookup {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

func TestDefaults(t *testing.T) {
	c, err := Load(from(complete(t)))
	if err != nil {
		t.Fatal(err)
	}
	if c.Pepper == nil || c.Cipher == nil {
		t.Error("the keysets were not read")
	}
	c.Pepper, c.Cipher = nil, nil
	const db = "postgres://app:hunter2@db:5432/payments"
	want := Config{
		Addr: "127.0.0.1:8080", AdminAddr: "127.0.0.1:8081", DatabaseURL: db, MigrateDatabaseURL: db, ReadDatabaseURL: db,
		KafkaBrokers: []string{"a:9092", "b:9093"}, KafkaPartitions: 6, Kafka: Kafka{ReplicationFactor: 1}, Outbox: Outbox{1_000_000, 7 * 24 * time.Hour}, Reports: Reports{5 * time.Minute, 30 * time.Minute},
		Bank:            Bank{Provider: "simulator", ProviderURL: "http://provider:8090", ProviderTimeout: 2 * time.Second},
		ProviderHorizon: 5 * time.Second, UnfinishedPayments: 256, UnfinishedAge: 10 * time.Second, SagaConcurrency: 256, ProviderCalls: 64, WebhooksConcurrency: 128,
		InboxKeep: 30 * 24 * time.Hour, InboxMaxAttempts: 5,
		RateLimit: 2000, RateBurst: 4000, UnauthenticatedLimit: 100, UnauthenticatedBurst: 500,
		Held: Held{Waits: 1000, WaitsPerMerchant: 200, Streams: 1000, StreamsPerMerchant: 100, Exports: 8, ExportsPerMerchant: 2}, FeedKeep: 168 * time.Hour,
		OrderDeadline: time.Hour, CaptureWindow: 144 * time.Hour, Reconcile: Reconcile{6 * time.Hour, 3, 5},
		Roles: Roles{"api", "saga", "relay", "projector", "webhooks", "reports"}, Traces: Traces{Ratio: 1}, Log: Log{slog.LevelInfo, "json"},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestEverySettingIsRead(t *testing.T) {
	env := complete(t)
	maps.Copy(env, map[string]string{
		"PAYMENTS_ADDR": "[::1]:0", "PAYMENTS_ADMIN_ADDR": ":9", "PAYMENTS_MIGRATE_DATABASE_URL": "postgresql://o@db/p",
		"PAYMENTS_READ_DATABASE_URL": "postgres:///p?host=/run/pg", "PAYMENTS_KAFKA_PARTITIONS": "12", "PAYMENTS_OUTBOX_PARTITION_SIZE": "5000", "PAYMENTS_OUTBOX_RETENTION": "36h", "PAYMENTS_KAFKA_PREFIX": "staging.a-b_1.", "PAYMENTS_KAFKA_FENCING": "on",
		"PAYMENTS_PROVIDER_TIMEOUT": "100ms", "PAYMENTS_PROVIDER_HORIZON": "100ms", "PAYMENTS_ROLES": "relay, api",
		"PAYMENTS_STREAMS": "5", "PAYMENTS_STREAMS_PER_MERCHANT": "6", "PAYMENTS_WAITS": "8", "PAYMENTS_WAITS_PER_MERCHANT": "9",
		"PAYMENTS_ADMIN_HOSTS": "service, Payments.Internal", "PAYMENTS_EXPORTS": "3", "PAYMENTS_EXPORTS_PER_MERCHANT": "4", "PAYMENTS_FEED_KEEP": "2h",
		"PAYMENTS_INBOX_KEEP": "48h", "PAYMENTS_INBOX_MAX_ATTEMPTS": "7",
		"PAYMENTS_UNFINISHED_PAYMENTS": "0", "PAYMENTS_UNFINISHED_AGE": "3s", "PAYMENTS_SAGA_CONCURRENCY": "1", "PAYMENTS_PROVIDER_CALLS": "2", "PAYMENTS_ORDER_DEADLINE": "2s", "PAYMENTS_CAPTURE_WINDOW": "3s", "PAYMENTS_TRACES_ENDPOINT": "http://c:4318/v1/traces", "PAYMENTS_TRACES_RATIO": "0.25", "PAYMENTS_LOG_LEVEL": "debug", "PAYMENTS_LOG_FORMAT": "text",
		"PAYMENTS_PROVIDER": "stripe", "PAYMENTS_PROVIDER_URL": "", "PAYMENTS_STRIPE_KEY": stripeKey, "PAYMENTS_STRIPE_URL": "http://stripe:12111/",
		"PAYMENTS_PROVIDER_WEBHOOK_SECRETS": webhookSecret + "1, " + webhookSecret + "2",
		"PAYMENTS_TLS_CERT":                 "/tls/cert.pem", "PAYMENTS_TLS_KEY": "/tls/key.pem",
		"PAYMENTS_RATE_LIMIT": "0", "PAYMENTS_RATE_BURST": "1", "PAYMENTS_STRANGER_LIMIT": "3", "PAYMENTS_STRANGER_BURST": "4",
	})
	c, err := Load(from(env))
	if err != nil {
		t.Fatal(err)
	}
	if c.Addr != "[::1]:0" || c.AdminAddr != ":9" || c.MigrateDatabaseURL != "postgresql://o@db/p" ||
		c.ReadDatabaseURL != "postgres:///p?host=/run/pg" || c.KafkaPartitions != 12 || c.Outbox != (Outbox{5000, 36 * time.Hour}) || c.KafkaPrefix != "staging.a-b_1." || !c.Kafka.Fencing || c.SagaConcurrency != 1 || c.UnfinishedPayments != 0 || c.UnfinishedAge != 3*time.Second || c.ProviderCalls != 2 ||
		c.InboxKeep != 48*time.Hour || c.InboxMaxAttempts != 7 ||
		c.TLSCert != "/tls/cert.pem" || c.TLSKey != "/tls/key.pem" ||
		c.Held != (Held{Waits: 8, WaitsPerMerchant: 9, Streams: 5, StreamsPerMerchant: 6, Exports: 3, ExportsPerMerchant: 4}) || c.FeedKeep != 2*time.Hour ||
		!slices.Equal(c.AdminHosts, []string{"service", "payments.internal"}) || c.RateLimit != 0 || c.RateBurst != 1 || c.UnauthenticatedLimit != 3 || c.UnauthenticatedBurst != 4 ||
		c.OrderDeadline != 2*time.Second || c.CaptureWindow != 3*time.Second ||
		c.ProviderTimeout != 100*time.Millisecond || c.ProviderHorizon != c.ProviderTimeout ||
		!c.Roles.Has(RoleRelay) || !c.Roles.Has(RoleAPI) || c.Roles.Has(RoleSaga) || c.Log != (Log{slog.LevelDebug, "text"}) ||
		c.Traces != (Traces{"http://c:4318/v1/traces", 0.25}) ||
		c.Provider != ProviderStripe || c.ProviderURL != "" || c.StripeKey != stripeKey || c.StripeURL != "http://stripe:12111" ||
		!slices.Equal(c.WebhookSecrets, []string{webhookSecret + "1", webhookSecret + "2"}) {
		t.Errorf("config = %+v", c)
	}
}

func TestWrongValues(t *testing.T) {
	const s3cret = "s3cret"
	for _, test := range []struct{ name, value, want string }{
		{"PAYMENTS_DATABASE_URL", "", "PAYMENTS_DATABASE_URL is required and not set"},
		{"PAYMENTS_KAFKA_BROKERS", "  ", "PAYMENTS_KAFKA_BROKERS is required and not set"},
		{"PAYMENTS_PROVIDER_URL", "", "PAYMENTS_PROVIDER_URL is required and not set"},
		{"PAYMENTS_PEPPER_KEYSET", "", "PAYMENTS_PEPPER_KEYSET is required and not set"},
		{"PAYMENTS_ENCRYPTION_KEYSET", "", "PAYMENTS_ENCRYPTION_KEYSET is required and not set"},
		{"PAYMENTS_PEPPER_KEYSET", s3cret, "PAYMENTS_PEPPER_KEYSET is not"},
		{"PAYMENTS_ENCRYPTION_KEYSET", s3cret, "PAYMENTS_ENCRYPTION_KEYSET is not"},
		{"PAYMENTS_DATABASE_URL", "postgres://a:" + s3cret + "@db:port/x", "must be a Postgres URL"},
		{"PAYMENTS_DATABASE_URL", "mysql://a:" + s3cret + "@db/x", "must be a Postgres URL"},
		{"PAYMENTS_MIGRATE_DATABASE_URL", "postgres://", "PAYMENTS_MIGRATE_DATABASE_URL must be a Postgres URL"},
		{"PAYMENTS_READ_DATABASE_URL", s3cret, "PAYMENTS_READ_DATABASE_URL must be a Postgres URL"},
		{"PAYMENTS_ADDR", s3cret, "PAYMENTS_ADDR must be host:port"},
		{"PAYMENTS_ADMIN_ADDR", "h:65536", "PAYMENTS_ADMIN_ADDR must be host:port"},
		{"PAYMENTS_KAFKA_BROKERS", "a:9092,,b:9092", "PAYMENTS_KAFKA_BROKERS must be a comma-separated list"},
		{"PAYMENTS_KAFKA_BROKERS", "a:0", "PAYMENTS_KAFKA_BROKERS must be a comma-separated list"},
		{"PAYMENTS_PROVIDER_URL", "ftp://u:" + s3cret + "@x", "PAYMENTS_PROVIDER_URL must be an http or https URL"},
		{"PAYMENTS_PROVIDER_URL", "http://", "PAYMENTS_PROVIDER_URL must be an http or https URL"},
		{"PAYMENTS_PROVIDER", s3cret, "PAYMENTS_PROVIDER must be simulator or stripe"},
		{"PAYMENTS_STRIPE_KEY", s3cret, "PAYMENTS_STRIPE_KEY must be a secret (sk_…) or restricted (rk_…) key of Stripe"},
		{"PAYMENTS_STRIPE_URL", s3cret, "PAYMENTS_STRIPE_URL must be an http or https URL"},
		{"PAYMENTS_PROVIDER_WEBHOOK_SECRETS", webhookSecret + ",whsec_" + s3cret, "number 2 is not"},
		{"PAYMENTS_PROVIDER_WEBHOOK_SECRETS", webhookSecret + ",", "number 2 is not"},
		{"PAYMENTS_PROVIDER_WEBHOOK_SECRETS", webhookSecret + "," + webhookSecret, "number 2 twice"},
		{"PAYMENTS_ROLES", "api," + s3cret, "word 2 is none of them"},
		{"PAYMENTS_ROLES", "api,", "word 2 is none of them"},
		{"PAYMENTS_ROLES", "api,saga,api", "PAYMENTS_ROLES names the role api twice"},
		{"PAYMENTS_PROVIDER_TIMEOUT", "2", "PAYMENTS_PROVIDER_TIMEOUT must be a duration from 100ms to 10s"},
		{"PAYMENTS_PROVIDER_TIMEOUT", "99ms", "PAYMENTS_PROVIDER_TIMEOUT must be"},
		{"PAYMENTS_PROVIDER_TIMEOUT", "11s", "PAYMENTS_PROVIDER_TIMEOUT must be"},
		{"PAYMENTS_PROVIDER_HORIZON", "1s", "PAYMENTS_PROVIDER_HORIZON must not be shorter than PAYMENTS_PROVIDER_TIMEOUT"},
		{"PAYMENTS_KAFKA_PARTITIONS", "0", "PAYMENTS_KAFKA_PARTITIONS must be a whole number from 1 to 1000"},
		{"PAYMENTS_KAFKA_PREFIX", "a:" + s3cret, "PAYMENTS_KAFKA_PREFIX must have at most 100 letters"},
		{"PAYMENTS_KAFKA_PREFIX", strings.Repeat("p", 101), "PAYMENTS_KAFKA_PREFIX must have at most 100 letters"},
		{"PAYMENTS_KAFKA_FENCING", "yes", "PAYMENTS_KAFKA_FENCING must be off or on"},
		{"PAYMENTS_KAFKA_TLS", "yes", "PAYMENTS_KAFKA_TLS must be on or off"},
		{"PAYMENTS_KAFKA_TLS_CA", "/" + s3cret, "PAYMENTS_KAFKA_TLS_CA must name a readable file"},
		{"PAYMENTS_KAFKA_TLS_CERT", s3cret, "PAYMENTS_KAFKA_TLS_CERT and PAYMENTS_KAFKA_TLS_KEY are needed together"},
		{"PAYMENTS_KAFKA_SASL_MECHANISM", s3cret, "PAYMENTS_KAFKA_SASL_MECHANISM must be PLAIN"},
		{"PAYMENTS_KAFKA_SASL_MECHANISM", "PLAIN", "PAYMENTS_KAFKA_SASL_MECHANISM PLAIN sends the password as it is"},
		{"PAYMENTS_KAFKA_SASL_USERNAME", "", "PAYMENTS_KAFKA_SASL_USERNAME is required with"},
		{"PAYMENTS_KAFKA_SASL_PASSWORD", "", "PAYMENTS_KAFKA_SASL_PASSWORD is required with"},
		{"PAYMENTS_KAFKA_MIN_INSYNC_REPLICAS", "2", "PAYMENTS_KAFKA_MIN_INSYNC_REPLICAS must not be above"},
		{"PAYMENTS_OUTBOX_PARTITION_SIZE", "10", "PAYMENTS_OUTBOX_PARTITION_SIZE must be a whole number"},
		{"PAYMENTS_OUTBOX_RETENTION", "1s", "PAYMENTS_OUTBOX_RETENTION must be a duration"},
		{"PAYMENTS_WEBHOOKS_ALLOW_PRIVATE", "yes", "PAYMENTS_WEBHOOKS_ALLOW_PRIVATE must be true or false"},
		{"PAYMENTS_WEBHOOKS_CONCURRENCY", "0", "PAYMENTS_WEBHOOKS_CONCURRENCY must be a whole number from 1 to 4096"},
		{"PAYMENTS_SAGA_CONCURRENCY", "1.5", "PAYMENTS_SAGA_CONCURRENCY must be a whole number"},
		{"PAYMENTS_TLS_CERT", s3cret, "PAYMENTS_TLS_CERT and PAYMENTS_TLS_KEY must both be set, or neither"},
		{"PAYMENTS_ADMIN_HOSTS", "service,http://" + s3cret, "PAYMENTS_ADMIN_HOSTS must be a comma-separated list of host names without a port: number 2 is none"},
		{"PAYMENTS_ADMIN_HOSTS", "service:8081", "number 1 is none"},
		{"PAYMENTS_ADMIN_HOSTS", "service,,b", "number 2 is none"},
		{"PAYMENTS_PROVIDER_FORMER", "true", "PAYMENTS_PROVIDER_FORMER needs PAYMENTS_ROLES=saga"},
		{"PAYMENTS_WAITS", "0", "PAYMENTS_WAITS must be a whole number from 1"},
		{"PAYMENTS_STREAMS_PER_MERCHANT", s3cret, "PAYMENTS_STREAMS_PER_MERCHANT must be a whole number from 1"},
		{"PAYMENTS_EXPORTS", "100001", "PAYMENTS_EXPORTS must be a whole number from 1 to 100000"},
		{"PAYMENTS_EXPORTS_PER_MERCHANT", "1.5", "PAYMENTS_EXPORTS_PER_MERCHANT must be a whole number"},
		{"PAYMENTS_RATE_LIMIT", "-1", "PAYMENTS_RATE_LIMIT must be a whole number from 0 to 1000000"},
		{"PAYMENTS_RATE_BURST", "0", "PAYMENTS_RATE_BURST must be a whole number from 1"},
		{"PAYMENTS_STRANGER_LIMIT", s3cret, "PAYMENTS_STRANGER_LIMIT must be a whole number"},
		{"PAYMENTS_STRANGER_BURST", "0", "PAYMENTS_STRANGER_BURST must be a whole number from 1"},
		{"PAYMENTS_LOG_LEVEL", s3cret, "PAYMENTS_LOG_LEVEL must be debug, info, warn or error"},
		{"PAYMENTS_TRACES_ENDPOINT", "grpc://" + s3cret, "PAYMENTS_TRACES_ENDPOINT must be an http or https URL"},
		{"PAYMENTS_TRACES_RATIO", "1.5", "PAYMENTS_TRACES_RATIO must be a number from 0 to 1"},
		{"PAYMENTS_TRACES_RATIO", "NaN", "PAYMENTS_TRACES_RATIO must be a number from 0 to 1"},
		{"PAYMENTS_LOG_FORMAT", s3cret, "PAYMENTS_LOG_FORMAT must be json or text"},
	} {
		env := complete(t)
		maps.Copy(env, map[string]string{
			"PAYMENTS_KAFKA_SASL_MECHANISM": "SCRAM-SHA-256", "PAYMENTS_KAFKA_SASL_USERNAME": "u", "PAYMENTS_KAFKA_SASL_PASSWORD": s3cret,
		})
		env[test.name] = test.value
		_, err := Load(from(env))
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), test.name+" ") ||
			strings.Contains(err.Error(), s3cret) || strings.Count(err.Error(), "\n") != 0 {
			t.Errorf("%s=%q: %v", test.name, test.value, err)
		}
	}
	// The encryption keyset in the pepper's place, and the other way round.
	env := complete(t)
	env["PAYMENTS_PEPPER_KEYSET"], env["PAYMENTS_ENCRYPTION_KEYSET"] = env["PAYMENTS_ENCRYPTION_KEYSET"], env["PAYMENTS_PEPPER_KEYSET"]
	if _, err := Load(from(env)); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("swapped keysets: %v", err)
	}
}

func TestStripeNeedsItsKeyAndNoURL(t *testing.T) {
	env := complete(t)
	env["PAYMENTS_PROVIDER"] = "stripe"
	delete(env, "PAYMENTS_PROVIDER_URL")
	_, err := Load(from(env))
	if err == nil || err.Error() != "PAYMENTS_STRIPE_KEY is required and not set" {
		t.Errorf("err = %v", err)
	}
	env["PAYMENTS_STRIPE_KEY"] = stripeKey
	c, err := Load(from(env))
	if err != nil || c.ProviderTimeout != 5*time.Second || c.ProviderHorizon != 2*time.Minute {
		t.Errorf("config = %+v, %v", c, err)
	}
}

func TestAllErrorsAreToldAtOnce(t *testing.T) {
	_, err := Load(from(nil))
	if err == nil || strings.Count(err.Error(), "is required and not set") != 5 {
		t.Errorf("err = %v", err)
	}
}

func TestLoadMigrateAndSimulator(t *testing.T) {
	m, err := LoadMigrate(from(map[string]string{"PAYMENTS_DATABASE_URL": "postgres://app@db/p"}))
	if err != nil || m.OwnerURL != "postgres://app@db/p" || m.AppURL != m.OwnerURL {
		t.Errorf("migrate = %+v, %v", m, err)
	}
	if _, err := LoadMigrate(from(nil)); err == nil {
		t.Error("migrate without a database is accepted")
	}
	s, err := LoadSimulator(from(map[string]string{"PAYMENTS_SIMULATOR_DATA": "ledger.db"}))
	if want := (Simulator{Addr: "127.0.0.1:8082", Data: "ledger.db", AuthorizationLifetime: 168 * time.Hour, Log: Log{Format: "json"}}); err != nil || !reflect.DeepEqual(s, want) {
		t.Errorf("simulator = %+v, %v", s, err)
	}
	const url = "http://service:8080/v1/provider/webhooks/simulator"
	env := map[string]string{
		"PAYMENTS_SIMULATOR_DATA": "ledger.db", "PAYMENTS_SIMULATOR_AUTHORIZATION_LIFETIME": "1m",
		"PAYMENTS_SIMULATOR_WEBHOOK_URL": url, "PAYMENTS_SIMULATOR_WEBHOOK_SECRET": webhookSecret,
	}
	s, err = LoadSimulator(from(env))
	if err != nil || s.AuthorizationLifetime != time.Minute || s.WebhookURL != url || s.WebhookSecret != webhookSecret {
		t.Errorf("simulator = %+v, %v", s, err)
	}
	for name, want := range map[string]string{
		"PAYMENTS_SIMULATOR_WEBHOOK_URL":    "PAYMENTS_SIMULATOR_WEBHOOK_SECRET needs PAYMENTS_SIMULATOR_WEBHOOK_URL beside it",
		"PAYMENTS_SIMULATOR_WEBHOOK_SECRET": "PAYMENTS_SIMULATOR_WEBHOOK_URL needs PAYMENTS_SIMULATOR_WEBHOOK_SECRET beside it",
	} {
		without := maps.Clone(env)
		delete(without, name)
		if _, err := LoadSimulator(from(without)); err == nil || err.Error() != want {
			t.Errorf("without %s: %v", name, err)
		}
	}
	if _, err := LoadSimulator(from(nil)); err == nil || !strings.HasPrefix(err.Error(), "PAYMENTS_SIMULATOR_DATA ") {
		t.Errorf("simulator without a file: %v", err)
	}
}
