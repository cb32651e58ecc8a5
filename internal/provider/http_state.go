package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// maxList is above the most operations that a page of payments, or one payment, has.
const maxList = 4 << 20

// ledgerAnswer is an operation as the provider's ledger has it.
type ledgerAnswer struct {
	operationAnswer
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires"`
	Reason    string    `json:"reason"`
	RespondBy time.Time `json:"respond_by"`
}

// Inspect reads the payment's operations.
func (h *HTTP) Inspect(ctx context.Context, p Payment) (State, error) {
	if p.Reference == "" {
		return State{}, errors.New("inspect not sent: it needs a reference")
	}
	var list struct {
		Object string          `json:"object"`
		Data   *[]ledgerAnswer `json:"data"`
	}
	if err := h.list(ctx, "/v1/operations", url.Values{"reference": {p.Reference}}, &list); err != nil {
		return State{}, fmt.Errorf("inspect %s: %w", p.Reference, err)
	}
	if list.Object != "list" || list.Data == nil {
		return State{}, fmt.Errorf("inspect %s: the provider's answer is not a list", p.Reference)
	}
	s, err := ledgerState(p.Reference, *list.Data, h.now())
	if err != nil {
		return State{}, fmt.Errorf("inspect %s: %w", p.Reference, err)
	}
	if p.Authorization == "" {
		return s, nil
	}
	for _, a := range s.Authorizations {
		if a.ID == p.Authorization {
			return s, nil
		}
	}
	return State{}, fmt.Errorf("inspect %s: %w", p.Reference, ErrUnknownID)
}

// List reads a page of the ledger.
func (h *HTTP) List(ctx context.Context, from, to time.Time, cursor string) (Page, error) {
	query := url.Values{"created_from": {from.UTC().Format(time.RFC3339Nano)}, "created_to": {to.UTC().Format(time.RFC3339Nano)}}
	if cursor != "" {
		query.Set("after", cursor)
	}
	var list struct {
		Object string `json:"object"`
		Data   *[]struct {
			Reference  string         `json:"reference"`
			Operations []ledgerAnswer `json:"operations"`
		} `json:"data"`
		Next string `json:"next"`
	}
	if err := h.list(ctx, "/v1/payments", query, &list); err != nil {
		return Page{}, fmt.Errorf("list payments: %w", err)
	}
	if list.Object != "list" || list.Data == nil || list.Next != "" && list.Next == cursor {
		return Page{}, errors.New("list payments: the provider's answer is not a page of a list")
	}
	page := Page{Next: list.Next}
	for _, p := range *list.Data {
		s, err := ledgerState(p.Reference, p.Operations, h.now())
		if err != nil {
			return Page{}, fmt.Errorf("list payments: %w", err)
		}
		page.States = append(page.States, s)
	}
	return page, nil
}

func (h *HTTP) list(ctx context.Context, path string, query url.Values, into any) error {
	a, err := h.callUpTo(ctx, maxList, http.MethodGet, path, query, "", nil)
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		return a.failure()
	}
	return a.decode(into)
}

// ledgerState is what a payment's operations, oldest first, come to.
func ledgerState(reference string, operations []ledgerAnswer, now time.Time) (State, error) {
	s := State{Reference: reference}
	for _, o := range operations {
		if o.ID == "" || Printable(o.ID, 255) != o.ID || o.Reference != reference {
			return State{}, errors.New("the provider answered with an operation of another reference, or without an id")
		}
		if o.Status == "succeeded" || o.Type == Authorization || o.Type == Refund {
			s.add(o, now)
		}
	}
	return s, nil
}

func (s *State) add(o ledgerAnswer, now time.Time) {
	status, code := o.Status, Printable(o.Code, 64)
	switch o.Type {
	case Authorization:
		a := AuthorizationState{
			ID: o.ID, Key: o.IdempotencyKey, Status: AuthorizationDeclined, Amount: o.Amount, Currency: o.Currency, Created: o.Created, ExpiresAt: o.Expires,
		}
		if status == "succeeded" {
			a.Status = AuthorizationHeld
			if !o.Expires.IsZero() && !o.Expires.After(now) {
				a.Status = AuthorizationExpired
			}
		}
		s.Authorizations = append(s.Authorizations, a)
	case Capture:
		s.Captures = append(s.Captures, CaptureState{ID: o.ID, Key: o.IdempotencyKey, Authorization: o.Parent, Amount: o.Amount, Currency: o.Currency})
		s.became(o.Parent, AuthorizationCaptured)
	case Void:
		s.became(o.Parent, AuthorizationVoided)
		s.voidedBy(o.Parent, o.ID)
	case Refund:
		r := RefundState{
			ID: o.ID, Key: o.IdempotencyKey, Capture: o.Parent, Status: RefundSucceeded, Amount: o.Amount, Currency: o.Currency, Created: o.Created,
		}
		if status != "succeeded" {
			r.Status, r.Code = RefundFailed, code
		}
		s.Refunds = append(s.Refunds, r)
	case "dispute":
		s.Disputes = append(s.Disputes, DisputeState{
			ID: o.ID, Capture: o.Parent, Status: DisputeOpen, Amount: o.Amount, Currency: o.Currency,
			Reason: Printable(o.Reason, 64), RespondBy: o.RespondBy, Created: o.Created,
		})
	case "dispute_closure":
		for i := range s.Disputes {
			if d := &s.Disputes[i]; d.ID == o.Parent && o.Reason == "won" {
				d.Status = DisputeWon
			} else if d.ID == o.Parent {
				d.Status = DisputeLost
			}
		}
	}
}

func (s *State) voidedBy(authorization, void string) {
	for i := range s.Authorizations {
		if s.Authorizations[i].ID == authorization {
			s.Authorizations[i].Void = void
		}
	}
}

func (s *State) became(authorization string, status AuthorizationStatus) {
	for i := range s.Authorizations {
		if s.Authorizations[i].ID == authorization {
			s.Authorizations[i].Status = status
		}
	}
}
