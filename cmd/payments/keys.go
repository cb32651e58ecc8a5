package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/access"
	"payments/internal/api"
	"payments/internal/idempotency"
	"payments/internal/payment"
	"payments/internal/telemetry"
)

const keysUsage = `usage:
  payments keys create -role ROLE [-merchant mer_…] [-holder WHO] [-mode test|live] [-network CIDR]… [-expires-in 720h] [-version YYYY-MM-DD]
  payments keys list [-merchant mer_…]
  payments keys rotate [-mode test|live] [-overlap 24h] key_…
  payments keys approve key_…
  payments keys pin -version YYYY-MM-DD key_…
  payments keys revoke key_…
  payments keys acts [key_…]

A key takes two persons, each with the own API key in PAYMENTS_OPERATOR_KEY: one creates it and gets its
first part, the other approves it and gets its second. The holder of a key rotates it alone.
The first two persons' operator keys need no PAYMENTS_OPERATOR_KEY`

type keyArguments struct {
	access.KeySpec
	overlap time.Duration
	id      string
}

// runKeys makes and moves API keys. A new key's text, or the part of it that the caller gets,
// is printed once, alone on the standard output.
func runKeys(ctx context.Context, e environment) error {
	if len(e.args) == 0 || !slices.Contains([]string{"create", "list", "rotate", "approve", "pin", "revoke", "acts"}, e.args[0]) {
		return errors.New(keysUsage)
	}
	verb := e.args[0]
	a, err := e.keyArguments(verb)
	if err != nil {
		return err
	}
	pool, err := e.openWrite(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	log := telemetry.NewLogger(e.stderr, slog.LevelInfo, "text")
	reader := access.NewKeys(pool, nil, generator(), log)
	switch verb {
	case "list":
		return e.listKeys(ctx, reader, a.MerchantID)
	case "acts":
		return e.listKeyActs(ctx, reader, a.id)
	}
	pepper, err := e.pepper()
	if err != nil {
		return err
	}
	by, err := e.keyActor(ctx, pool, verb, a)
	if err != nil {
		return err
	}
	return e.actOnKey(ctx, access.NewKeys(pool, pepper, generator(), log), verb, by, a)
}

func (e environment) actOnKey(ctx context.Context, keys *access.Keys, verb string, by access.By, a keyArguments) (err error) {
	// A command is not repeated by itself: it takes a key of its own.
	request := idempotency.Request{MerchantID: "payments keys", Key: rand.Text()}
	render := func(k access.APIKey) (idempotency.Response, error) {
		return idempotency.Response{ResourceID: k.ID, Status: 201}, nil
	}
	var made access.Made
	switch {
	case verb == "pin":
		_, err = keys.Pin(ctx, by, a.id, a.APIVersion)
		return err
	case verb == "revoke":
		_, err = keys.Revoke(ctx, by, a.id)
		return err
	case verb == "approve":
		part, k, err := keys.Approve(ctx, by, a.id)
		if err != nil {
			return err
		}
		fmt.Fprintf(e.stderr, "%s of %s works now. This is the second part of it; it is not shown again:\n", k.ID, k.Holder)
		_, err = fmt.Fprintln(e.stdout, part)
		return err
	case verb == "rotate":
		made, err = keys.Rotate(ctx, by, request, a.id, a.Mode, a.overlap, render)
	case by.KeyID == "":
		made, err = keys.Bootstrap(ctx, by, request, a.KeySpec, render)
	default:
		made, err = keys.Create(ctx, by, request, a.KeySpec, render)
	}
	if err != nil {
		return err
	}
	if made.Secret != "" {
		fmt.Fprintf(e.stderr, "%s, role %s; it is not shown again:\n", made.Key.ID, made.Key.Role)
		_, err = fmt.Fprintln(e.stdout, made.Secret)
		return err
	}
	fmt.Fprintf(e.stderr, "%s, role %s, waits for another person: payments keys approve %s\nThis is the first part of it; the second comes directly after it. It is not shown again:\n",
		made.Key.ID, made.Key.Role, made.Key.ID)
	_, err = fmt.Fprintln(e.stdout, made.Part)
	return err
}

// keyActor is who has the key in PAYMENTS_OPERATOR_KEY. Only an operator's key can be made
// without one, and Bootstrap says until when.
func (e environment) keyActor(ctx context.Context, pool *pgxpool.Pool, verb string, a keyArguments) (access.By, error) {
	by := access.By{Source: access.SourceCommandLine, Origin: whereFrom()}
	if verb == "create" && a.Role == access.RoleOperator && e.value("PAYMENTS_OPERATOR_KEY") == "" {
		return by, nil
	}
	do := access.KeysWrite
	if verb == "rotate" {
		do = access.KeysRotate
	}
	who, err := e.operator(ctx, pool, do)
	if err != nil {
		return by, err
	}
	by.KeyID, by.Holder, by.Others = who.KeyID, who.Holder, who.Role == access.RoleOperator
	return by, nil
}

// whereFrom is the system's user and host, as far as they are known.
func whereFrom() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil && h != "" {
		host = h
	}
	from := name + "@" + host
	if payment.CheckText(from, 255) != nil {
		return "unknown"
	}
	return from
}

func (e environment) keyArguments(verb string) (a keyArguments, err error) {
	flags := flag.NewFlagSet("keys "+verb, flag.ContinueOnError)
	flags.SetOutput(e.stderr)
	var role, mode string
	var lives time.Duration
	if verb == "create" || verb == "list" {
		flags.StringVar(&a.MerchantID, "merchant", "", "the merchant's id")
	}
	if verb == "create" || verb == "rotate" {
		flags.StringVar(&mode, "mode", string(access.ModeTest), "test or live")
	}
	if verb == "create" || verb == "pin" {
		flags.StringVar(&a.APIVersion, "version", api.NewestVersion(), "the version of the API that it is answered in")
	}
	switch verb {
	case "create":
		flags.StringVar(&role, "role", "", fmt.Sprint("one of ", access.Roles()))
		flags.StringVar(&a.Holder, "holder", "", "the person or system that it is given to; a merchant's key may do without")
		flags.DurationVar(&lives, "expires-in", 0, "how long it works; for good if 0")
		flags.Func("network", "from where it works, in CIDR form; may be repeated", func(s string) error {
			var n netip.Prefix
			n, err := access.ParseNetwork(s)
			a.Networks = append(a.Networks, n)
			return err
		})
	case "rotate":
		flags.DurationVar(&a.overlap, "overlap", 24*time.Hour, "how long the old key goes on to work")
	}
	if err := flags.Parse(e.args[1:]); err != nil {
		return a, err
	}
	a.Role, a.Mode = access.Role(role), access.Mode(mode)
	if lives < 0 {
		return a, errors.New("-expires-in must not be negative")
	}
	if lives > 0 {
		at := time.Now().Add(lives)
		a.ExpiresAt = &at
	}
	if a.APIVersion != "" && !slices.Contains(api.Versions(), a.APIVersion) {
		return a, fmt.Errorf("-version must be one of %v", api.Versions())
	}
	if a.MerchantID != "" && !payment.ValidID(payment.PrefixMerchant, a.MerchantID) {
		return a, errors.New("-merchant must be a merchant's id (mer_…)")
	}
	if verb == "create" || verb == "list" || verb == "acts" && flags.NArg() == 0 {
		if flags.NArg() > 0 {
			return a, fmt.Errorf("unexpected argument %q", flags.Arg(0))
		}
		return a, nil
	}
	if flags.NArg() != 1 || !payment.ValidID(payment.PrefixKey, flags.Arg(0)) {
		return a, errors.New("name one API key by its id (key_…), behind the flags")
	}
	a.id = flags.Arg(0)
	return a, nil
}
