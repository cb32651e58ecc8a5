package config

import (
	"slices"
	"strings"
	"testing"
)

func TestUnknownVariablesAreTold(t *testing.T) {
	for variable, want := range map[string]string{
		"PAYMENTS_DATABSE_URL":         "PAYMENTS_DATABSE_URL is not a known variable and has no effect; the nearest known one is PAYMENTS_DATABASE_URL",
		"PAYMENTS_RATELIMIT":           "the nearest known one is PAYMENTS_RATE_LIMIT",
		"PAYMENTS_OPERATR_KEY_FILE":    "PAYMENTS_OPERATR_KEY_FILE is not a known variable and has no effect; the nearest known one is PAYMENTS_OPERATOR_KEY",
		"PAYMENTS_STREAMS_PER_KEY":     "PAYMENTS_STREAMS_PER_KEY is not read any more: it is PAYMENTS_STREAMS_PER_MERCHANT now",
		"PAYMENTS_WAITS_PER_KEY":       "it is PAYMENTS_WAITS_PER_MERCHANT now",
		"PAYMENTS_ROLES":               "",
		"PAYMENTS_DATA_DIR":            "",
		"PAYMENTS_PEPPER_KEYSET_FILE":  "",
		"PAYMENTS_SERVICE_HOST":        "", // Kubernetes has a Service of this name
		"PAYMENTS_PORT_8080_TCP_ADDR":  "",
		"PAYMENTS_SERVICE_PORT_HTTP":   "",
		"payments_roles":               "",
		"PAYMENTS":                     "",
		"OTHER_PAYMENTS_DATABASE_URLS": "",
	} {
		got := strings.Join(Unknown([]string{"HOME=/", variable + "=s3cret"}), "\n")
		if want == "" && got != "" || !strings.HasSuffix(got, want) || strings.Contains(got, "s3cret") {
			t.Errorf("%s: %q, want %q", variable, got, want)
		}
	}
}

func TestEveryVariableOfTheLoadersIsKnown(t *testing.T) {
	known := Known()
	for _, name := range []string{
		"PAYMENTS_ADDR", "PAYMENTS_STRIPE_KEY", "PAYMENTS_KAFKA_TLS_CA", "PAYMENTS_SIMULATOR_DATA", "PAYMENTS_READ_DATABASE_URL", "PAYMENTS_PROVIDER_HORIZON",
		"PAYMENTS_LOG_FORMAT", "PAYMENTS_KAFKA_SASL_PASSWORD", "PAYMENTS_RECONCILE_DAYS", "PAYMENTS_REPORTS_TIMEOUT", "PAYMENTS_OUTBOX_RETENTION",
	} {
		if !slices.Contains(known, name) {
			t.Errorf("%s is not known", name)
		}
	}
}
