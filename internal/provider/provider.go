package provider

import (
	"context"
	"fmt"
	"time"
)

// OperationType names what is done with the money.
type OperationType string

// The operations of a card payment.
const (
	Authorization OperationType = "authorization" // holds an amount
	Capture       OperationType = "capture"       // takes what an authorization holds
	Void          OperationType = "void"          // releases what an authorization holds
	Refund        OperationType = "refund"        // gives back what a capture took
)

// Operation is one business attempt. Everything in it but Until is the same on every
// resend; a provider refuses the same Key with other content.
type Operation struct {
	Key           string // idempotency key at the provider; derived from saga, step and business attempt
	Reference     string // our own reference, pay_…
	Type          OperationType
	Amount        int64     // minor units
	Currency      string    // ISO 4217
	PaymentMethod string    // authorization only
	Until         time.Time // lookup only: no request with Key is expected to arrive after it, and if one does all the same, a later lookup finds it; zero when that is not known
	Parent        string    // provider's id of the operation acted on: the authorization for capture and void, the capture for refund
}

// Outcome is what is known of an operation. Its zero value is none of them, so
// that a forgotten Result does not read as a success.
type Outcome int

// The outcomes.
const (
	Succeeded Outcome = iota + 1
	Rejected          // final: nothing was done and nothing will be
	NotFound          // Lookup only: the provider answered that it has none
	Unknown
)

func (o Outcome) String() string {
	switch o {
	case Succeeded:
		return "succeeded"
	case Rejected:
		return "rejected"
	case NotFound:
		return "not_found"
	case Unknown:
		return "unknown"
	}
	return fmt.Sprintf("outcome(%d)", int(o))
}

// Result is what one call found out.
type Result struct {
	Outcome     Outcome
	OperationID string // provider's id, when known
	Code        string // Rejected: stable decline code such as card_declined, insufficient_funds
	Message     string // a person's sentence; never contains card data

	// InFlight is for Unknown of Execute only: a request of this call may still
	// be applied later. It is false when none can be: no connection was ever
	// had, or the one request sent was answered with an error. A Lookup, which
	// changes nothing, leaves it false; that says nothing of earlier Executes.
	InFlight bool

	// Pending is for Unknown only: the provider has the operation and answered that
	// it does not know yet how it ends, as of a refund that waits for the balance.
	Pending bool

	Err error // Unknown: the cause
}

// The codes of a Result that is Unknown because the request went astray: to a wrong
// account, with a wrong key, or to a wrong URL. Such an answer proves nothing about the
// operation, however final it sounds.
const (
	CodeUnknownParent = "provider_unknown_parent" // it does not know the id of Operation.Parent, which it gave us
	CodeAccessRefused = "provider_access_refused" // it does not accept the credentials
	CodeOtherAccount  = "provider_other_account"  // the answer is from another account than Account named
)

// Provider is safe for concurrent use.
type Provider interface {
	Name() string

	// Execute sends op. It may be called again with the same op at any time
	// within the key's lifetime at the provider; nothing is done twice.
	Execute(ctx context.Context, op Operation) Result

	// Lookup asks by our own reference, type and key. NotFound proves nothing
	// while a request of an earlier Execute may still be in flight.
	Lookup(ctx context.Context, op Operation) Result

	Inspector
}

func unknown(inFlight bool, format string, args ...any) Result {
	return Result{Outcome: Unknown, InFlight: inFlight, Err: fmt.Errorf(format, args...)}
}
