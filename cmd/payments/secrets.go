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
  payments secrets reencrypt [-check] [-batch 500]`

// secrets prints NAME=value lines: what docker compose needs beside its file, or a
// keyset of the environment after one step of its rotation.
func secrets(ctx context.Context, e environment) error {
	if len(e.args) > 0 {
		step, ok := map[string]func(string) (string, error){"add": secret.AddKey, "promote": secret.PromoteKey, "drop": secret.DropOldKeys}[e.args[0]]
		switch {
		case e.args[0] == "reencrypt":
			return e.reencrypt(ctx)
		case !ok || len(e.args) != 2:
			return errors.New(rotationUsage)
		}
		return e.rotateKeyset(step, e.args[1])
	}
	lines, err := freshSecrets("POSTGRES_PASSWORD", "PAYMENTS_OWNER_PASSWORD", "PAYMENTS_DB_PASSWORD", "GRAFANA_ADMIN_PASSWORD")
	for _, l := range lines {
		if _, err := fmt.Fprintf(e.stdout, "%s=%s\n", l[0], l[1]); err != nil {
			return err
		}
	}
	return err
}

// freshSecrets makes the named passwords, both keysets, the secret of the
// simulator's webhooks and the three demo keys.
func freshSecrets(passwords ...string) (lines [][2]string, err error) {
	for _, name := range passwords {
		var b [24]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		lines = append(lines, [2]string{name, hex.EncodeToString(b[:])})
	}
	pepper, err := secret.NewPepperKeyset()
	if err != nil {
		return nil, err
	}
	cipher, err := secret.NewCipherKeyset()
	if err != nil {
		return nil, err
	}
	lines = append(lines, [2]string{"PAYMENTS_PEPPER_KEYSET", pepper}, [2]string{"PAYMENTS_ENCRYPTION_KEYSET", cipher},
		[2]string{"PAYMENTS_SIMULATOR_WEBHOOK_SECRET", "whsec_" + rand.Text()})
	for _, name := range []string{"PAYMENTS_API_KEY", "PAYMENTS_API_KEY_2", "PAYMENTS_OPERATOR_KEY"} {
		var b [20]byte
		_, _ = rand.Read(b[:])
		lines = append(lines, [2]string{name, access.FormatKey(access.ModeTest, generator().New(payment.PrefixKey), b)})
	}
	return lines, nil
}

// generator of identifiers, by the machine's clock and randomness.
func generator() payment.Generator { return payment.Generator{Now: time.Now, Random: rand.Reader} }
