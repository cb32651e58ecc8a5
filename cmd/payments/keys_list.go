package main

import (
	"context"
	"io"
	"math"
	"net/url"

	"github.com/urfave/cli/v3"

	"payments/internal/access"
	"payments/internal/api"
)

// pageOfKeys is how many keys or acts are read at once.
const pageOfKeys = 1000

func (e environment) listKeys(ctx context.Context, c *cli.Command, keys *access.Keys, merchantID string) error {
	all := listOf[api.Key](nil)
	for after := ""; ; {
		list, err := keys.List(ctx, merchantID, after, pageOfKeys)
		if err != nil {
			return err
		}
		for _, k := range list {
			all.Data, after = append(all.Data, api.ShowKey(k)), k.ID
		}
		if len(list) < pageOfKeys {
			break
		}
	}
	return e.showKeys(c, all)
}

// remoteKeys reads keys or acts over HTTP.
func (e environment) remoteKeys(ctx context.Context, c *cli.Command, r remote, a keyArguments) error {
	query := url.Values{}
	if c.Name == "list" {
		if a.MerchantID != "" {
			query.Set("merchant", a.MerchantID)
		}
		all, err := getAll[api.Key](ctx, r, "/v1/ops/keys", query, math.MaxInt)
		if err != nil {
			return err
		}
		return e.showKeys(c, all)
	}
	if a.id != "" {
		query.Set("key", a.id)
	}
	all, err := getAll[api.KeyAct](ctx, r, "/v1/ops/key_acts", query, math.MaxInt)
	if err != nil {
		return err
	}
	return e.showKeyActs(c, all)
}

func (e environment) showKeys(c *cli.Command, all listed[api.Key]) error {
	return e.show(c, all, func(w io.Writer) {
		t := newTable(w, "ID", "ROLE", "MERCHANT", "HOLDER", "CREATED", "APPROVED", "LAST USED", "EXPIRES", "REVOKED", "REPLACED BY", "VERSION", "NETWORKS")
		for _, k := range all.Data {
			t.row(k.ID, k.Role, k.Merchant, k.Holder, k.CreatedAt, k.ApprovedAt, k.LastUsedAt, k.ExpiresAt, k.RevokedAt, k.ReplacedBy, k.APIVersion, k.Networks)
		}
		_ = t.Flush()
	})
}

// listKeyActs prints the record of acts on one key, or on all when keyID is empty.
func (e environment) listKeyActs(ctx context.Context, c *cli.Command, keys *access.Keys, keyID string) error {
	all := listOf[api.KeyAct](nil)
	for after := ""; ; {
		list, err := keys.Acts(ctx, keyID, after, pageOfKeys)
		if err != nil {
			return err
		}
		for _, a := range list {
			all.Data, after = append(all.Data, api.ShowKeyAct(a)), a.ID
		}
		if len(list) < pageOfKeys {
			break
		}
	}
	return e.showKeyActs(c, all)
}

func (e environment) showKeyActs(c *cli.Command, all listed[api.KeyAct]) error {
	return e.show(c, all, func(w io.Writer) {
		t := newTable(w, "AT", "ACTION", "KEY", "OF", "MERCHANT", "BY", "OPERATOR", "SOURCE", "FROM", "DETAIL")
		for _, a := range all.Data {
			t.row(a.CreatedAt, a.Action, a.Key, a.KeyHolder, a.Merchant, a.Holder, a.Operator, a.Source, a.Origin, a.Detail)
		}
		_ = t.Flush()
	})
}
