package config

import (
	"log/slog"
	"slices"
	"time"

	"payments/internal/secret"
)

// Lookup is os.LookupEnv.
type Lookup func(name string) (value string, ok bool)

// Log is what every subcommand says.
type Log struct {
	Level  slog.Level
	Format string // json or text
}

// Traces are sent by OTLP over HTTP.
type Traces struct {
	Endpoint string  // http(s)://collector:4318/v1/traces; empty: none are sent
	Ratio    float64 // of those that begin here, 0 to 1
}

// Config of `payments serve`.
type Config struct {
	Addr                 string // host:port
	AdminAddr            string
	AdminHosts           []string // names that the admin address may be asked by
	TLSCert              string   // PEM file of the public address's certificate chain; empty: plain HTTP
	TLSKey               string   // PEM file of its key; empty without TLSCert
	RateLimit            int      // requests a second of one API key; 0: no limit
	RateBurst            int
	UnauthenticatedLimit int // refusals a second of one address's unauthenticated callers; 0: no limit
	UnauthenticatedBurst int
	Held                 Held
	FeedKeep             time.Duration // how long a merchant's feed can be resumed
	DatabaseURL          string
	MigrateDatabaseURL   string // of the schema's owner; DatabaseURL unless set
	ReadDatabaseURL      string // of the read model; DatabaseURL unless set
	KafkaBrokers         []string
	Kafka                Kafka
	KafkaPartitions      int    // of a topic that has to be made
	KafkaPrefix          string // before the name of every topic and group; empty unless set
	Outbox               Outbox
	Reports              Reports
	Bank
	WebhookSecrets []string // whsec_…, each live, of the provider's webhooks; none: they are not served
	// WebhooksAllowPrivate lets merchants' endpoints be http, loopback and private addresses.
	WebhooksAllowPrivate bool
	WebhooksConcurrency  int           // deliveries under way at once
	ProviderHorizon      time.Duration // how long a request may still be in flight; at least ProviderTimeout
	OrderDeadline        time.Duration // until an order that was not captured turns back
	Reconcile            Reconcile
	CaptureWindow        time.Duration // how long a manual payment waits for its capture
	Roles                Roles
	UnfinishedPayments   int           // accepted and unfinished, beyond which new ones are refused; 0: no bound
	UnfinishedAge        time.Duration // for which a payment may wait to be begun before new ones are refused
	SagaConcurrency      int           // sagas in hand at once
	ProviderCalls        int           // calls to the provider under way at once
	InboxKeep            time.Duration // how long the ids of applied messages are kept
	InboxMaxAttempts     int           // of a message, before its key is blocked
	Pepper               *secret.Pepper
	Cipher               *secret.Cipher
	Traces               Traces
	Log                  Log
}

// The providers.
const (
	ProviderSimulator = "simulator"
	ProviderStripe    = "stripe"
)

// Load reads the settings of `payments serve`. Its error is an *Error.
func Load(lookup Lookup) (Config, error) {
	c, err := load(lookup)
	if err != nil {
		return Config{}, err
	}
	return c, nil
}

// Partial is what Load could read, without what is wrong or missing: for who looks for faults.
func Partial(lookup Lookup) Config {
	c, _ := load(lookup) // Load tells
	return c
}

func load(lookup Lookup) (Config, error) {
	r := reader{lookup: lookup}
	c := Config{
		Addr:                 r.address("PAYMENTS_ADDR", "127.0.0.1:8080"),
		AdminAddr:            r.address("PAYMENTS_ADMIN_ADDR", "127.0.0.1:8081"),
		AdminHosts:           r.hosts("PAYMENTS_ADMIN_HOSTS"),
		TLSCert:              r.text("PAYMENTS_TLS_CERT", optional),
		TLSKey:               r.text("PAYMENTS_TLS_KEY", optional),
		RateLimit:            r.integer("PAYMENTS_RATE_LIMIT", 2000, 0, 1_000_000),
		RateBurst:            r.integer("PAYMENTS_RATE_BURST", 4000, 1, 10_000_000),
		UnauthenticatedLimit: r.integer("PAYMENTS_STRANGER_LIMIT", 100, 0, 1_000_000),
		UnauthenticatedBurst: r.integer("PAYMENTS_STRANGER_BURST", 500, 1, 10_000_000),
		Held:                 r.held(),
		FeedKeep:             r.duration("PAYMENTS_FEED_KEEP", 7*24*time.Hour, time.Hour, 10*365*24*time.Hour),
		DatabaseURL:          r.databaseURL("PAYMENTS_DATABASE_URL", required),
		MigrateDatabaseURL:   r.databaseURL("PAYMENTS_MIGRATE_DATABASE_URL", optional),
		ReadDatabaseURL:      r.databaseURL("PAYMENTS_READ_DATABASE_URL", optional),
		KafkaBrokers:         r.addresses("PAYMENTS_KAFKA_BROKERS"),
		Kafka:                r.kafka(),
		KafkaPartitions:      r.integer("PAYMENTS_KAFKA_PARTITIONS", 6, 1, 1000),
		KafkaPrefix:          r.kafkaPrefix("PAYMENTS_KAFKA_PREFIX"),
		Outbox:               r.outbox(),
		Reports:              r.reports(),
		Reconcile:            r.reconcile(),
		Bank:                 r.bank(),
		WebhookSecrets:       r.webhookSecrets("PAYMENTS_PROVIDER_WEBHOOK_SECRETS"),
		WebhooksAllowPrivate: r.boolean("PAYMENTS_WEBHOOKS_ALLOW_PRIVATE"),
		WebhooksConcurrency:  r.integer("PAYMENTS_WEBHOOKS_CONCURRENCY", 128, 1, 4096),
		OrderDeadline:        r.duration("PAYMENTS_ORDER_DEADLINE", time.Hour, time.Second, 7*24*time.Hour),
		CaptureWindow:        r.duration("PAYMENTS_CAPTURE_WINDOW", 6*24*time.Hour, time.Second, 30*24*time.Hour),
		Roles:                r.roles("PAYMENTS_ROLES"),
		UnfinishedPayments:   r.integer("PAYMENTS_UNFINISHED_PAYMENTS", 256, 0, 1_000_000),
		UnfinishedAge:        r.duration("PAYMENTS_UNFINISHED_AGE", 10*time.Second, time.Second, 24*time.Hour),
		SagaConcurrency:      r.integer("PAYMENTS_SAGA_CONCURRENCY", 256, 1, 4096),
		ProviderCalls:        r.integer("PAYMENTS_PROVIDER_CALLS", 64, 1, 1024),
		InboxKeep:            r.duration("PAYMENTS_INBOX_KEEP", 30*24*time.Hour, 24*time.Hour, 10*365*24*time.Hour),
		InboxMaxAttempts:     r.integer("PAYMENTS_INBOX_MAX_ATTEMPTS", 5, 1, 1000),
		Pepper:               keyset(&r, "PAYMENTS_PEPPER_KEYSET", secret.ParseMAC),
		Cipher:               keyset(&r, "PAYMENTS_ENCRYPTION_KEYSET", secret.ParseAEAD),
		Traces:               Traces{r.httpURL("PAYMENTS_TRACES_ENDPOINT", optional), r.ratio("PAYMENTS_TRACES_RATIO", 1)},
		Log:                  r.log(),
	}
	horizon := 5 * time.Second
	if c.Provider == ProviderStripe {
		horizon = 2 * time.Minute
	}
	c.ProviderHorizon = r.duration("PAYMENTS_PROVIDER_HORIZON", horizon, 100*time.Millisecond, 24*time.Hour)
	if c.MigrateDatabaseURL == "" {
		c.MigrateDatabaseURL = c.DatabaseURL
	}
	if c.ReadDatabaseURL == "" {
		c.ReadDatabaseURL = c.DatabaseURL
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		r.wrong("PAYMENTS_TLS_CERT", "and PAYMENTS_TLS_KEY must both be set, or neither")
	}
	if c.ProviderHorizon < c.ProviderTimeout && len(r.errs) == 0 {
		r.wrong("PAYMENTS_PROVIDER_HORIZON", "must not be shorter than PAYMENTS_PROVIDER_TIMEOUT")
	}
	if c.ProviderFormer && !slices.Equal(c.Roles, Roles{RoleSaga}) && len(r.errs) == 0 {
		r.wrong("PAYMENTS_PROVIDER_FORMER", "needs PAYMENTS_ROLES=saga: a process of a former account has no other role")
	}
	return c, r.err()
}

// Migrate is what `payments migrate` needs.
type Migrate struct {
	OwnerURL string
	AppURL   string // whose role is granted what the service needs
	Log      Log
}

// LoadMigrate reads PAYMENTS_DATABASE_URL and PAYMENTS_MIGRATE_DATABASE_URL.
func LoadMigrate(lookup Lookup) (Migrate, error) {
	r := reader{lookup: lookup}
	m := Migrate{
		AppURL:   r.databaseURL("PAYMENTS_DATABASE_URL", required),
		OwnerURL: r.databaseURL("PAYMENTS_MIGRATE_DATABASE_URL", optional),
		Log:      r.log(),
	}
	if m.OwnerURL == "" {
		m.OwnerURL = m.AppURL
	}
	if err := r.err(); err != nil {
		return Migrate{}, err
	}
	return m, nil
}

// Replay is what `payments replay` needs.
type Replay struct {
	DatabaseURL   string
	ReadOwnerURL  string // of the role that owns the read model's tables
	OwnerVariable string // that ReadOwnerURL comes from
	KafkaBrokers  []string
	Kafka         Kafka
	KafkaPrefix   string
}

// LoadReplay takes a separate read database by its own role, which owns it, and
// the write database's by the role that migrates it.
func LoadReplay(lookup Lookup) (Replay, error) {
	r := reader{lookup: lookup}
	c := Replay{
		DatabaseURL:  r.databaseURL("PAYMENTS_DATABASE_URL", required),
		KafkaBrokers: r.addresses("PAYMENTS_KAFKA_BROKERS"),
		Kafka:        r.kafka(),
		KafkaPrefix:  r.kafkaPrefix("PAYMENTS_KAFKA_PREFIX"),
	}
	read := r.databaseURL("PAYMENTS_READ_DATABASE_URL", optional)
	migrate := r.databaseURL("PAYMENTS_MIGRATE_DATABASE_URL", optional)
	switch {
	case read != "" && read != c.DatabaseURL:
		c.ReadOwnerURL, c.OwnerVariable = read, "PAYMENTS_READ_DATABASE_URL"
	case migrate != "":
		c.ReadOwnerURL, c.OwnerVariable = migrate, "PAYMENTS_MIGRATE_DATABASE_URL"
	default:
		c.ReadOwnerURL, c.OwnerVariable = c.DatabaseURL, "PAYMENTS_DATABASE_URL"
	}
	if err := r.err(); err != nil {
		return Replay{}, err
	}
	return c, nil
}

// Owner is what works on all rows needs (`payments seed -payments`, `payments secrets
// reencrypt`): both models as their owner, and the keys.
type Owner struct {
	WriteOwnerURL, WriteVariable string
	ReadOwnerURL                 string // WriteOwnerURL unless the read model stands elsewhere
	Pepper                       *secret.Pepper
	Cipher                       *secret.Cipher
}

// LoadOwner takes the databases as LoadReplay does.
func LoadOwner(lookup Lookup) (Owner, error) {
	r := reader{lookup: lookup}
	url := r.databaseURL("PAYMENTS_DATABASE_URL", required)
	read := r.databaseURL("PAYMENTS_READ_DATABASE_URL", optional)
	c := Owner{WriteOwnerURL: r.databaseURL("PAYMENTS_MIGRATE_DATABASE_URL", optional), WriteVariable: "PAYMENTS_MIGRATE_DATABASE_URL"}
	if c.WriteOwnerURL == "" {
		c.WriteOwnerURL, c.WriteVariable = url, "PAYMENTS_DATABASE_URL"
	}
	if c.ReadOwnerURL = c.WriteOwnerURL; read != "" && read != url {
		c.ReadOwnerURL = read
	}
	c.Pepper, c.Cipher = keyset(&r, "PAYMENTS_PEPPER_KEYSET", secret.ParseMAC), keyset(&r, "PAYMENTS_ENCRYPTION_KEYSET", secret.ParseAEAD)
	if err := r.err(); err != nil {
		return Owner{}, err
	}
	return c, nil
}

// Simulator is what `payments simulator` needs.
type Simulator struct {
	Addr                  string        // host:port
	Hosts                 []string      // names that it may be asked by
	Data                  string        // the ledger's file
	AuthorizationLifetime time.Duration // after it no capture
	WebhookURL            string        // where operations are notified; empty: nowhere
	WebhookSecret         string        // whsec_…; empty without WebhookURL
	Log                   Log
}

// LoadSimulator reads PAYMENTS_SIMULATOR_*.
func LoadSimulator(lookup Lookup) (Simulator, error) {
	r := reader{lookup: lookup}
	s := Simulator{
		Addr:  r.address("PAYMENTS_SIMULATOR_ADDR", "127.0.0.1:8082"),
		Hosts: r.hosts("PAYMENTS_SIMULATOR_HOSTS"),
		Data:  r.text("PAYMENTS_SIMULATOR_DATA", required),
		AuthorizationLifetime: r.duration("PAYMENTS_SIMULATOR_AUTHORIZATION_LIFETIME",
			168*time.Hour, time.Second, 8760*time.Hour),
		WebhookURL: r.httpURL("PAYMENTS_SIMULATOR_WEBHOOK_URL", optional),
		Log:        r.log(),
	}
	switch secrets := r.webhookSecrets("PAYMENTS_SIMULATOR_WEBHOOK_SECRET"); {
	case len(secrets) > 1:
		r.wrong("PAYMENTS_SIMULATOR_WEBHOOK_SECRET", "must be one secret")
	case len(secrets) == 1 && s.WebhookURL == "" && len(r.errs) == 0:
		r.wrong("PAYMENTS_SIMULATOR_WEBHOOK_SECRET", "needs PAYMENTS_SIMULATOR_WEBHOOK_URL beside it")
	case len(secrets) == 0 && s.WebhookURL != "" && len(r.errs) == 0:
		r.wrong("PAYMENTS_SIMULATOR_WEBHOOK_URL", "needs PAYMENTS_SIMULATOR_WEBHOOK_SECRET beside it")
	case len(secrets) == 1:
		s.WebhookSecret = secrets[0]
	}
	if err := r.err(); err != nil {
		return Simulator{}, err
	}
	return s, nil
}
