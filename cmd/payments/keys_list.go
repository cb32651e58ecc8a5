package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"payments/internal/access"
)

// pageOfKeys is how many keys or acts are read at once.
const pageOfKeys = 1000

func (e environment) listKeys(ctx context.Context, keys *access.Keys, merchantID string) error {
	out := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "ID\tROLE\tMERCHANT\tHOLDER\tCREATED\tAPPROVED\tLAST USED\tEXPIRES\tREVOKED\tREPLACED BY\tVERSION\tNETWORKS")
	for after := ""; ; {
		list, err := keys.List(ctx, merchantID, after, pageOfKeys)
		if err != nil {
			return err
		}
		for _, k := range list {
			fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%v\n", k.ID, k.Role, k.MerchantID, k.Holder, when(&k.CreatedAt), when(k.ApprovedAt),
				when(k.LastUsedAt), when(k.ExpiresAt), when(k.RevokedAt), orEmpty(k.ReplacedBy), k.APIVersion, k.Networks)
			after = k.ID
		}
		if len(list) < pageOfKeys {
			return out.Flush()
		}
	}
}

// listKeyActs prints the record of acts on one key, or on all when keyID is empty.
func (e environment) listKeyActs(ctx context.Context, keys *access.Keys, keyID string) error {
	out := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "AT\tACTION\tKEY\tOF\tMERCHANT\tBY\tOPERATOR\tSOURCE\tFROM\tDETAIL")
	for after := ""; ; {
		list, err := keys.Acts(ctx, keyID, after, pageOfKeys)
		if err != nil {
			return err
		}
		for _, a := range list {
			fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", when(&a.CreatedAt), a.Action, a.KeyID, a.KeyHolder, a.MerchantID,
				orEmpty(a.Holder), orEmpty(a.Operator), a.Source, a.Origin, orEmpty(a.Detail))
			after = a.ID
		}
		if len(list) < pageOfKeys {
			return out.Flush()
		}
	}
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func when(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
