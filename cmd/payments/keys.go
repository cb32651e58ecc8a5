package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"text/tabwriter"
	"time"

	"payments/internal/access"
	"payments/internal/api"
	"payments/internal/idempotency"
	"payments/internal/payment"
)

const keysUsage = `usage:
  payments keys create -role ROLE [-merchant mer_…] [-holder WHO] [-mode test|live] [-network CIDR]… [-expires-in 720h] [-version YYYY-MM-DD]
  payments keys list [-merchant mer_…]
  payments keys rotate [-mode test|live] [-overlap 24h] key_…
  payments keys pin -version YYYY-MM-DD key_…
  payments keys revoke key_…`

type keyArguments struct {
	access.KeySpec
	overlap time.Duration
	id      string
}

// runKeys makes and moves API keys. A new key's text is printed once, alone on the
// standard output.
func runKeys(ctx context.Context, e environment) error {
	if len(e.args) == 0 || !slices.Contains([]string{"create", "list", "rotate", "pin", "revoke"}, e.args[0]) {
		return errors.New(keysUsage)
	}
	a, err := e.keyArguments(e.args[0])
	if err != nil {
		return err
	}
	pool, err := e.openWrite(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	if e.args[0] == "list" {
		return e.listKeys(ctx, access.NewKeys(pool, nil, generator()), a.MerchantID)
	}
	if e.args[0] == "pin" {
		_, err := access.NewKeys(pool, nil, generator()).Pin(ctx, a.id, a.APIVersion)
		return err
	}
	if e.args[0] == "revoke" {
		_, err := access.NewKeys(pool, nil, generator()).Revoke(ctx, a.id)
		return err
	}
	pepper, err := e.pepper()
	if err != nil {
		return err
	}
	keys := access.NewKeys(pool, pepper, generator())
	// A command is not repeated by itself: it takes a key of its own.
	request := idempotency.Request{MerchantID: "payments keys", Key: rand.Text()}
	render := func(k access.APIKey) (idempotency.Response, error) {
		return idempotency.Response{ResourceID: k.ID, Status: 201}, nil
	}
	var made access.Made
	if e.args[0] == "create" {
		made, err = keys.Create(ctx, request, a.KeySpec, render)
	} else {
		made, err = keys.Rotate(ctx, request, a.id, a.Mode, a.overlap, render)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "%s, role %s; it is not shown again:\n", made.Key.ID, made.Key.Role)
	_, err = fmt.Fprintln(e.stdout, made.Secret)
	return err
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
	if verb == "create" || verb == "list" {
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

func (e environment) listKeys(ctx context.Context, keys *access.Keys, merchantID string) error {
	out := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "ID\tROLE\tMERCHANT\tHOLDER\tCREATED\tLAST USED\tEXPIRES\tREVOKED\tREPLACED BY\tVERSION\tNETWORKS")
	const page = 1000
	for after := ""; ; {
		list, err := keys.List(ctx, merchantID, after, page)
		if err != nil {
			return err
		}
		for _, k := range list {
			replaced := ""
			if k.ReplacedBy != nil {
				replaced = *k.ReplacedBy
			}
			fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%v\n", k.ID, k.Role, k.MerchantID, k.Holder, when(&k.CreatedAt), when(k.LastUsedAt),
				when(k.ExpiresAt), when(k.RevokedAt), replaced, k.APIVersion, k.Networks)
			after = k.ID
		}
		if len(list) < page {
			return out.Flush()
		}
	}
}

func when(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
