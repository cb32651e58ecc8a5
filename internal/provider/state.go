package provider

import (
	"context"
	"errors"
	"time"
)

// Payment names a payment to the provider: by our reference, and by the provider's
// own id of its authorization once there is one.
type Payment struct{ Reference, Authorization string }

// ErrUnknownID means that the provider does not know an id that it gave us itself.
// That proves nothing about the payment: the key, the account or the URL is wrong.
var ErrUnknownID = errors.New("the provider does not know an id that it gave us: the key, the account or the URL is another one")

// ErrOtherPayment means that the authorization is of another payment than the one named.
var ErrOtherPayment = errors.New("the authorization is of another payment")

// State is everything that the provider has of one payment, whoever caused it.
// Each list is complete, oldest first.
type State struct {
	Reference      string // ours; empty where the provider has an operation of somebody else
	Authorizations []AuthorizationState
	Captures       []CaptureState
	Refunds        []RefundState
	Disputes       []DisputeState
}

// AuthorizationStatus is what became of an authorization.
type AuthorizationStatus string

// The states of an authorization.
const (
	AuthorizationPending  AuthorizationStatus = "pending" // not decided yet
	AuthorizationDeclined AuthorizationStatus = "declined"
	AuthorizationHeld     AuthorizationStatus = "held"
	AuthorizationCaptured AuthorizationStatus = "captured"
	AuthorizationVoided   AuthorizationStatus = "voided"
	AuthorizationExpired  AuthorizationStatus = "expired"
)

// AuthorizationState is one authorization. Amounts here and below are in minor
// units; Key is our idempotency key, or empty if the operation was not ours.
type AuthorizationState struct {
	ID, Key   string
	Status    AuthorizationStatus
	Amount    int64
	Currency  string
	Created   time.Time
	ExpiresAt time.Time // zero: the provider does not say
	Void      string    // the provider's id of what released it, if anything did
}

// CaptureState is one capture that took money.
type CaptureState struct {
	ID, Key, Authorization string
	Amount                 int64
	Currency               string
}

// RefundState is one refund.
type RefundState struct {
	ID, Key, Capture string
	Status           RefundStatus
	Amount           int64
	Currency         string
	Code             string // of one that failed
	Created          time.Time
}

// RefundStatus is what became of a refund.
type RefundStatus string

// The states of a refund.
const (
	RefundPending   RefundStatus = "pending"
	RefundSucceeded RefundStatus = "succeeded"
	RefundFailed    RefundStatus = "failed"
)

// DisputeStatus is where a dispute stands.
type DisputeStatus string

// The states of a dispute. The provider may still change won to lost, and back.
const (
	DisputeOpen DisputeStatus = "open"
	DisputeWon  DisputeStatus = "won"
	DisputeLost DisputeStatus = "lost"
)

// DisputeState is one dispute of a capture.
type DisputeState struct {
	ID, Capture string
	Status      DisputeStatus
	Amount      int64
	Currency    string
	Reason      string
	RespondBy   time.Time // zero: there is nothing to answer
	Created     time.Time
}

// Unsettled says whether something of the payment is open at the provider: money that is held, or
// taken and not given back, a dispute that may take more, or an authorization that is not decided.
// So is a state that tells of nothing, since the provider may not know yet, and one of money that
// was taken by a capture of which it does not tell.
func (s State) Unsettled() bool {
	if len(s.Authorizations)+len(s.Captures) == 0 {
		return true
	}
	captured := map[string]bool{} // by authorization
	for _, c := range s.Captures {
		captured[c.Authorization] = true
	}
	for _, a := range s.Authorizations {
		open := a.Status == AuthorizationHeld || a.Status == AuthorizationPending
		if open || a.Status == AuthorizationCaptured && !captured[a.ID] {
			return true
		}
	}
	taken := map[string]int64{} // by capture
	for _, c := range s.Captures {
		taken[c.ID] += c.Amount
	}
	for _, r := range s.Refunds {
		if r.Status == RefundSucceeded {
			taken[r.Capture] -= r.Amount
		}
	}
	for _, d := range s.Disputes {
		if d.Status == DisputeOpen {
			return true
		}
		if d.Status == DisputeLost {
			taken[d.Capture] -= d.Amount
		}
	}
	for _, amount := range taken {
		if amount > 0 {
			return true
		}
	}
	return false
}

// Page is a part of a list. Next is the cursor of the part after it, or empty.
type Page struct {
	States []State
	Next   string
}

// Inspector reads what a provider has. It never changes anything.
type Inspector interface {
	// Account names the account that the credentials are for: the provider's name, a
	// colon and the account's own id, such as stripe:acct_1. An operation is known in
	// its own account alone: to all others it does not exist.
	Account(ctx context.Context) (string, error)

	// Inspect reads all that the provider has of one payment. An error means that
	// nothing is known; ErrUnknownID is one of its causes. A payment without a known
	// authorization may have none in the answer though it was given one just now.
	Inspect(ctx context.Context, p Payment) (State, error)

	// List reads the payments that something was done to from one time up to, but
	// not including, another. A payment can be in several pages; what is done while the
	// list is read may be missing. The cursor is empty at first.
	List(ctx context.Context, from, to time.Time, cursor string) (Page, error)
}

// InspectListed asks anew for a payment of which a list gave these authorizations, by the id of each:
// a search by the reference may find an older state, or be refused to the credentials. Without ids
// it asks by the reference. Errors: those of Inspect.
func InspectListed(ctx context.Context, by Inspector, reference string, authorizations []string) (State, error) {
	if len(authorizations) == 0 {
		return by.Inspect(ctx, Payment{Reference: reference})
	}
	all := State{Reference: reference}
	for _, id := range authorizations {
		one, err := by.Inspect(ctx, Payment{Reference: reference, Authorization: id})
		if err != nil {
			return State{}, err
		}
		all.Join(one)
	}
	return all, nil
}

// Join adds another part of the same payment. Of what both have the other's counts.
func (s *State) Join(other State) {
	s.Authorizations = join(s.Authorizations, other.Authorizations, func(a AuthorizationState) string { return a.ID })
	s.Captures = join(s.Captures, other.Captures, func(c CaptureState) string { return c.ID })
	s.Refunds = join(s.Refunds, other.Refunds, func(r RefundState) string { return r.ID })
	s.Disputes = join(s.Disputes, other.Disputes, func(d DisputeState) string { return d.ID })
}

func join[T any](all, by []T, id func(T) string) []T {
	at := map[string]int{}
	for i, v := range all {
		at[id(v)] = i
	}
	for _, v := range by {
		if i, ok := at[id(v)]; ok {
			all[i] = v
		} else {
			all = append(all, v)
		}
	}
	return all
}

// AuthorizationIDs are those of the state's authorizations.
func (s State) AuthorizationIDs() []string {
	ids := make([]string, len(s.Authorizations))
	for i, a := range s.Authorizations {
		ids[i] = a.ID
	}
	return ids
}
