package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

type operation struct {
	ID, Reference, Type, Status, Currency string
	Amount                                int64
}

// account is what the provider has done for one payment.
type account struct {
	authorizations, captures, voids      int
	authorizedAmount, captured, refunded int64
	currencyDiffers                      bool
}

func (a Audit) compareLedger(ctx context.Context, payments map[string]written) ([]Finding, error) {
	once := Finding{Invariant: 2, Name: "at the provider: one authorization, one capture at most"}
	agrees := Finding{Invariant: 3, Name: "a terminal payment agrees with the provider"}
	accounts := map[string]*account{}
	err := a.readLedger(ctx, func(o operation) {
		once.Counted++
		acc := accounts[o.Reference]
		if acc == nil {
			acc = &account{}
			accounts[o.Reference] = acc
		}
		if o.Status != "succeeded" {
			return
		}
		acc.currencyDiffers = acc.currencyDiffers || o.Currency != payments[o.Reference].Currency
		switch o.Type {
		case "authorization":
			acc.authorizations++
			acc.authorizedAmount += o.Amount
		case "capture":
			acc.captures++
			acc.captured += o.Amount
		case "void":
			acc.voids++
		case "refund":
			acc.refunded += o.Amount
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read the provider's ledger: %w", err)
	}
	for reference, acc := range accounts {
		if acc.authorizations > 1 || acc.captures > 1 {
			once.violate("%s has %d authorizations and %d captures", reference, acc.authorizations, acc.captures)
		}
		if acc.refunded > acc.captured {
			once.violate("%s was refunded %d of %d captured", reference, acc.refunded, acc.captured)
		}
		if _, known := payments[reference]; !known {
			agrees.violate("%s is at the provider only", reference)
		} else if acc.currencyDiffers {
			agrees.violate("%s has another currency at the provider", reference)
		}
	}
	for id, p := range payments {
		acc := accounts[id]
		if acc == nil {
			acc = &account{}
		}
		agrees.Counted++
		switch p.Status {
		case "succeeded":
			if acc.captured != p.Amount || p.Captured != p.Amount {
				agrees.violate("%s succeeded with %d; the provider captured %d", id, p.Amount, acc.captured)
			}
			// What is under way here may be done there.
			if acc.refunded < p.Refunded || acc.refunded > p.Refunded+p.Refunding {
				agrees.violate("%s has %d refunded and %d under way; the provider refunded %d", id, p.Refunded, p.Refunding, acc.refunded)
			}
		case "failed", "canceled":
			if acc.captured != acc.refunded || acc.captures == 0 && acc.authorizations > acc.voids && !p.Searching {
				agrees.violate("%s is %s; the provider holds %d authorizations less %d voids and took %d", id, p.Status,
					acc.authorizations, acc.voids, acc.captured-acc.refunded)
			}
		}
	}
	return []Finding{once, agrees}, nil
}

// readLedger streams the provider's list of operations.
func (a Audit) readLedger(ctx context.Context, each func(operation)) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.Ledger, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := a.Client.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answered %s", resp.Status)
	}
	d := json.NewDecoder(resp.Body)
	for {
		token, err := d.Token()
		if err != nil {
			return fmt.Errorf("no list of operations: %w", err)
		}
		if token == "data" {
			break
		}
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		var o operation
		if err := d.Decode(&o); err != nil {
			return err
		}
		each(o)
	}
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("the list of operations is cut off: %w", err)
	}
	return nil
}
