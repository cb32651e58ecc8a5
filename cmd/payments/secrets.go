package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"payments/internal/access"
	"payments/internal/payment"
	"payments/internal/secret"
)

// secrets prints NAME=value lines: what docker compose needs beside its file.
func secrets(_ context.Context, e environment) error {
	if err := e.noArguments(); err != nil {
		return err
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
