// Command payments is the whole service: each subcommand is one process of it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"payments/internal/config"
)

// version is set by the linker.
var version = "unversioned"

// environment is what a subcommand may know of its surroundings.
type environment struct {
	args           []string
	lookup         func(string) (string, bool)
	stdout, stderr io.Writer
}

type command struct {
	about string
	run   func(context.Context, environment) error
}

var commands = map[string]command{
	"serve":       {"run the service in the roles of PAYMENTS_ROLES", serve},
	"simulator":   {"run the payment provider's simulator", runSimulator},
	"migrate":     {"bring the schema up and grant the service's role", migrate},
	"seed":        {"make the demo merchants, keys and stock; with -payments N, N ended payments", seedDatabase},
	"secrets":     {"print fresh secrets, keep a stack's, rotate a keyset, or re-encrypt what is stored", secrets},
	"audit":       {"check the invariants, also under load; exit 1 if one is violated (-settled, -kafka, -from, -to)", runAudit},
	"parked":      {"list, show, replay or discard what could not be applied", runParked},
	"outbox":      {"show where the relays stand; repair that after a restore (status, reset, lost)", runOutbox},
	"reconcile":   {"compare a range with the provider; exit 1 if something differs (-repair: follow what is safe)", reconcile},
	"replay":      {"rebuild the read model from the write model, while the service runs", replay},
	"sagas":       {"list, show and move sagas, as an operator", sagas},
	"keys":        {"create, list, rotate, approve, pin or revoke API keys, and show what was done with them", runKeys},
	"webhooks":    {"deliver again what a merchant's endpoint missed: redeliver (-from, -to)", runWebhooks},
	"demo":        {"run everything on this machine, with state under .data", demo},
	"healthcheck": {"exit 0 if the URL answers 2xx", healthcheck},
	"welcome":     {"say what to do with docker compose's stack", welcome},
	"version":     {"print the version", printVersion},
}

// errViolated is an audit's no: the output has told what is wrong.
var errViolated = errors.New("an invariant is violated")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	lookup, err := config.WithFiles(os.Environ())
	if err == nil {
		err = run(ctx, os.Args[1:], lookup, os.Stdout, os.Stderr)
	}
	if err != nil {
		// A driver tells each address that it tried on a line of its own.
		fmt.Fprintln(os.Stderr, "payments:", strings.ReplaceAll(err.Error(), "\n\t", " "))
		code := 1
		if c, ok := errors.AsType[interface {
			error
			exitCode() int
		}](err); ok {
			code = c.exitCode()
		}
		os.Exit(code) //nolint:gocritic // stop has nothing left to do
	}
}

func run(ctx context.Context, args []string, lookup func(string) (string, bool), stdout, stderr io.Writer) error {
	if len(args) > 0 {
		if c, ok := commands[args[0]]; ok {
			return c.run(ctx, environment{args[1:], lookup, stdout, stderr})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		fmt.Fprintf(stderr, "payments %-12s %s\n", name, commands[name].about)
	}
	if len(args) == 0 {
		return errors.New("name a subcommand")
	}
	return fmt.Errorf("there is no subcommand %q", args[0])
}

// noArguments refuses what a subcommand would silently ignore.
func (e environment) noArguments() error {
	if len(e.args) > 0 {
		return fmt.Errorf("unexpected argument %q", e.args[0])
	}
	return nil
}

// value of a variable; empty counts as missing.
func (e environment) value(name string) string {
	v, _ := e.lookup(name)
	return v
}

func (e environment) required(name string) (string, error) {
	if v := e.value(name); v != "" {
		return v, nil
	}
	return "", fmt.Errorf("%s is missing", name)
}

func printVersion(_ context.Context, e environment) error {
	_, err := fmt.Fprintln(e.stdout, version)
	return errors.Join(e.noArguments(), err)
}
