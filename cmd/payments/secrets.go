package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v3"

	"payments/internal/access"
	"payments/internal/payment"
	"payments/internal/secret"
)

func (e environment) secretsCommand() *cli.Command {
	step := func(name, usage string, do func(string) (string, error)) *cli.Command {
		return &cli.Command{
			Name: name, Usage: usage, ArgsUsage: "VARIABLE", Description: about("Prints the variable's keyset after the step, as NAME=value.", "payments secrets "+name+" PAYMENTS_PEPPER_KEYSET"),
			Flags: shows(), Action: func(_ context.Context, c *cli.Command) error { return e.rotateKeyset(c, do) },
		}
	}
	return &cli.Command{
		Name: "secrets", Usage: "print fresh secrets, keep a stack's, rotate a keyset, or re-encrypt what is stored",
		Description: about("Alone it prints fresh secrets, as NAME=value.", "payments secrets > secrets.env", "payments secrets reencrypt -check"),
		Flags:       shows(), Action: alone(e.printFreshSecrets),
		Commands: []*cli.Command{
			step("add", "a keyset with a further key, which is accepted and not used yet", secret.AddKey),
			step("promote", "a keyset with its newest key as the one that is used", secret.PromoteKey),
			step("drop", "a keyset without all keys but the used one", secret.DropOldKeys),
			e.reencryptCommand(), e.keepCommand(), e.showSecretsCommand(),
		},
	}
}

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

func (e environment) printFreshSecrets(_ context.Context, c *cli.Command) error {
	var fresh variables
	for _, s := range stackSecrets {
		value, err := s.fresh()
		if err != nil {
			return err
		}
		fresh = append(fresh, [2]string{s.name, value})
	}
	return e.showVariables(c, fresh)
}

// variables are names and values, in order.
type variables [][2]string

// showVariables prints NAME=value, or one JSON object.
func (e environment) showVariables(c *cli.Command, all variables) error {
	object := map[string]string{}
	for _, v := range all {
		object[v[0]] = v[1]
	}
	return e.show(c, object, func(w io.Writer) {
		for _, v := range all {
			fmt.Fprintf(w, "%s=%s\n", v[0], v[1])
		}
	})
}

// generator of identifiers, by the machine's clock and randomness.
func generator() payment.Generator { return payment.Generator{Now: time.Now, Random: rand.Reader} }
