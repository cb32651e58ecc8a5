package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/urfave/cli/v3"

	"payments/internal/access"
	"payments/internal/api"
	"payments/internal/idempotency"
	"payments/internal/payment"
	"payments/internal/telemetry"
)

const twoPersons = `A key takes two persons, each with the own API key in PAYMENTS_OPERATOR_KEY: one creates it and gets its
first part, the other approves it and gets its second. The holder of a key rotates it alone.
The first two persons' operator keys need no PAYMENTS_OPERATOR_KEY.`

type keyArguments struct {
	access.KeySpec
	overlap time.Duration
	id      string
}

func (e environment) keysCommand() *cli.Command {
	const example = "key_01m8702cxwf0xvsswam8j18mgk"
	mode := func() cli.Flag {
		return &cli.StringFlag{Name: "mode", Value: string(access.ModeTest), Usage: "test or live"}
	}
	merchant := func() cli.Flag { return &cli.StringFlag{Name: "merchant", Usage: "the merchant's `ID`, mer_…"} }
	pinned := func() cli.Flag {
		return &cli.StringFlag{Name: "version", Value: api.NewestVersion(), Usage: "the version of the API that it is answered in"}
	}
	return &cli.Command{
		Name: "keys", Usage: "create, list, rotate, approve, pin or revoke API keys, and show what was done with them",
		Description: about(twoPersons, "payments keys list", "payments keys create -role operator -holder 'Ada Lovelace'"),
		Commands: []*cli.Command{
			{
				Name: "create", Usage: "make a key; its text, or its first part, is printed once",
				Description: about(twoPersons, "payments keys create -role merchant -merchant mer_01m8702cxwf0xvsswam8j18mgk -expires-in 720h"),
				Flags: shows(
					&cli.StringFlag{Name: "role", Usage: fmt.Sprint("one of ", access.Roles())}, merchant(), mode(), pinned(),
					&cli.StringFlag{Name: "holder", Usage: "the person or system that it is given to; a merchant's key may do without"},
					&cli.DurationFlag{Name: "expires-in", Usage: "how long it works; for good if 0"},
					&cli.StringSliceFlag{Name: "network", Usage: "from where it works, in `CIDR` form; may be repeated"}),
				Action: alone(e.withKeys),
			},
			{
				Name: "list", Usage: "list keys, without their secrets", Description: about("", "payments keys list", "payments keys list -output json"),
				Flags: reads(merchant()), Action: alone(e.withKeys),
			},
			{
				Name: "rotate", Usage: "make a key that takes the place of one", ArgsUsage: "key_…", Description: about("", "payments keys rotate -overlap 24h "+example),
				Flags: shows(mode(), &cli.DurationFlag{Name: "overlap", Value: 24 * time.Hour, Usage: "how long the old key goes on to work"}), Action: e.withKeys,
			},
			{
				Name: "approve", Usage: "approve a key as the second person, and print its second part", ArgsUsage: "key_…", Description: about("", "payments keys approve "+example),
				Flags: shows(), Action: e.withKeys,
			},
			{
				Name: "pin", Usage: "pin a key to a version of the API", ArgsUsage: "key_…", Description: about("", "payments keys pin -version "+api.NewestVersion()+" "+example),
				Flags: []cli.Flag{pinned()}, Action: e.withKeys,
			},
			{
				Name: "revoke", Usage: "let a key work no longer", ArgsUsage: "key_…", Description: about("", "payments keys revoke "+example), Action: e.withKeys,
			},
			{
				Name: "acts", Usage: "show what was done with one key, or with all", ArgsUsage: "[key_…]", Description: about("", "payments keys acts "+example),
				Flags: reads(), Action: e.withKeys,
			},
		},
	}
}

// withKeys makes and moves API keys. A new key's text, or the part of it that the caller gets,
// is printed once, alone on the standard output.
func (e environment) withKeys(ctx context.Context, c *cli.Command) error {
	verb := c.Name
	a, err := parseKeyArguments(c)
	if err != nil {
		return err
	}
	if (verb == "list" || verb == "acts") && e.overAPI(c) {
		r, err := e.remote()
		if err != nil {
			return err
		}
		return e.remoteKeys(ctx, c, r, a)
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
		return e.listKeys(ctx, c, reader, a.MerchantID)
	case "acts":
		return e.listKeyActs(ctx, c, reader, a.id)
	}
	pepper, err := e.pepper()
	if err != nil {
		return err
	}
	by, err := e.keyActor(ctx, pool, verb, a)
	if err != nil {
		return err
	}
	return e.actOnKey(ctx, c, access.NewKeys(pool, pepper, generator(), log), by, a)
}

func (e environment) actOnKey(ctx context.Context, c *cli.Command, keys *access.Keys, by access.By, a keyArguments) (err error) {
	verb := c.Name
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
		if !asJSON(c) {
			fmt.Fprintf(e.stderr, "%s of %s works now. This is the second part of it; it is not shown again:\n", k.ID, k.Holder)
		}
		return e.showMadeKey(c, k, "", part)
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
	switch {
	case asJSON(c):
	case made.Secret != "":
		fmt.Fprintf(e.stderr, "%s, role %s; it is not shown again:\n", made.Key.ID, made.Key.Role)
	default:
		fmt.Fprintf(e.stderr, "%s, role %s, waits for another person: payments keys approve %s\nThis is the first part of it; the second comes directly after it. It is not shown again:\n",
			made.Key.ID, made.Key.Role, made.Key.ID)
	}
	return e.showMadeKey(c, made.Key, made.Secret, made.Part)
}

// showMadeKey prints the text of a key, or the part of it that the caller gets, alone on a line.
func (e environment) showMadeKey(c *cli.Command, k access.APIKey, secret, part string) error {
	shown := api.ShowKey(k)
	if secret != "" {
		shown.Secret = &secret
	} else {
		shown.SecretPart = &part
	}
	return e.show(c, shown, func(w io.Writer) { fmt.Fprintln(w, cmp.Or(secret, part)) })
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

func parseKeyArguments(c *cli.Command) (a keyArguments, err error) {
	a.Role, a.Mode, a.Holder, a.MerchantID = access.Role(c.String("role")), access.Mode(c.String("mode")), c.String("holder"), c.String("merchant")
	a.APIVersion, a.overlap = c.String("version"), c.Duration("overlap")
	for _, s := range c.StringSlice("network") {
		n, err := access.ParseNetwork(s)
		if err != nil {
			return a, usagef("-network %w", err)
		}
		a.Networks = append(a.Networks, n)
	}
	lives := c.Duration("expires-in")
	if lives < 0 {
		return a, usagef("-expires-in must not be negative")
	}
	if lives > 0 {
		at := time.Now().Add(lives)
		a.ExpiresAt = &at
	}
	if a.APIVersion != "" && !slices.Contains(api.Versions(), a.APIVersion) {
		return a, usagef("-version must be one of %v", api.Versions())
	}
	if a.MerchantID != "" && !payment.ValidID(payment.PrefixMerchant, a.MerchantID) {
		return a, usagef("-merchant must be a merchant's id (mer_…)")
	}
	if c.Name == "create" || c.Name == "list" || c.Name == "acts" && !c.Args().Present() {
		return a, nil
	}
	if c.NArg() != 1 || !payment.ValidID(payment.PrefixKey, c.Args().First()) {
		return a, usagef("%s: name one API key by its id (key_…)", c.FullName())
	}
	a.id = c.Args().First()
	return a, nil
}
