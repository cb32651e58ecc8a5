package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"payments/internal/access"
	"payments/internal/payment"
	"payments/internal/secret"
)

const rotationUsage = `usage:
  payments secrets                    fresh secrets, as NAME=value
  payments secrets add VARIABLE       the variable's keyset with a further key, which is accepted and not used yet
  payments secrets promote VARIABLE   with its newest key as the one that is used
  payments secrets drop VARIABLE      without all others
  payments secrets reencrypt [-check] [-batch 500]
  payments secrets keep [-database DIR] [-give DIR:NAME,NAME…]…   the secrets of docker compose's stack, as files
  payments secrets show [NAME]        one that is kept there, or all of them as NAME=value`

// namedSecret is a secret of a stack or a demo, by its variable.
type namedSecret struct {
	name   string
	fresh  func() (string, error)
	check  func(value string) error // its error completes a sentence that begins with the name; nil takes any value
	keyset bool
}

// demoSecrets are what the service, its simulator and the demo's clients need.
var demoSecrets = []namedSecret{
	{"PAYMENTS_PEPPER_KEYSET", secret.NewPepperKeyset, checkWith(secret.ParseMAC), true},
	{"PAYMENTS_ENCRYPTION_KEYSET", secret.NewCipherKeyset, checkWith(secret.ParseAEAD), true},
	{"PAYMENTS_SIMULATOR_WEBHOOK_SECRET", func() (string, error) { return "whsec_" + rand.Text(), nil }, nil, false},
	{"PAYMENTS_API_KEY", freshAPIKey, checkAPIKey, false},
	{"PAYMENTS_API_KEY_2", freshAPIKey, checkAPIKey, false},
	{"PAYMENTS_OPERATOR_KEY", freshAPIKey, checkAPIKey, false},
	{"PAYMENTS_OPERATOR_KEY_2", freshAPIKey, checkAPIKey, false},
}

// stackSecrets are what docker compose's stack needs.
var stackSecrets = append([]namedSecret{
	{"POSTGRES_PASSWORD", freshPassword, nil, false},
	{"PAYMENTS_OWNER_PASSWORD", freshPassword, nil, false},
	{"PAYMENTS_DB_PASSWORD", freshPassword, nil, false},
	{"GRAFANA_ADMIN_PASSWORD", freshPassword, nil, false},
}, demoSecrets...)

func freshPassword() (string, error) {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:]), nil
}

func freshAPIKey() (string, error) {
	var b [20]byte
	_, _ = rand.Read(b[:])
	return access.FormatKey(access.ModeTest, generator().New(payment.PrefixKey), b), nil
}

func checkWith[T any](parse func(string) (T, error)) func(string) error {
	return func(value string) error { _, err := parse(value); return err }
}

func checkAPIKey(value string) error {
	if _, err := access.ParseKey(value); err != nil {
		return fmt.Errorf("is no API key: %w", err)
	}
	return nil
}

// secrets prints fresh secrets or one step of a keyset's rotation, or keeps and shows the
// secrets of docker compose's stack.
func secrets(ctx context.Context, e environment) error {
	if len(e.args) == 0 {
		for _, s := range stackSecrets {
			value, err := s.fresh()
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(e.stdout, "%s=%s\n", s.name, value); err != nil {
				return err
			}
		}
		return nil
	}
	verb := e.args[0]
	switch verb {
	case "reencrypt":
		return e.reencrypt(ctx)
	case "keep":
		return e.keepSecrets()
	case "show":
		return e.showSecrets()
	}
	step, ok := map[string]func(string) (string, error){"add": secret.AddKey, "promote": secret.PromoteKey, "drop": secret.DropOldKeys}[verb]
	if !ok || len(e.args) != 2 {
		return errors.New(rotationUsage)
	}
	return e.rotateKeyset(step, e.args[1])
}

// generator of identifiers, by the machine's clock and randomness.
func generator() payment.Generator { return payment.Generator{Now: time.Now, Random: rand.Reader} }
