package providertest

import (
	"context"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"payments/internal/provider"
)

// Strike is what befalls the next request of a type of operation: its client is
// never answered.
type Strike string

// The strikes.
const (
	Applied Strike = "timeout_applied" // it was done
	Lost    Strike = "timeout_lost"    // it was not, and will not be
)

// Subject is a provider under test, before an empty account.
type Subject struct {
	Patient provider.Provider // waits as long as a request may take on a busy machine
	Hasty   provider.Provider // gives up on a request that is not answered
	Dead    provider.Provider // before an address where nobody is

	Good, Declined string // payment methods
	DeclineCode    string

	// Strike holds until undo is called.
	Strike func(s Strike, t provider.OperationType) (undo func())
}

// Run runs the contract over the subjects that newSubject makes.
func Run(t *testing.T, newSubject func(t *testing.T) Subject) {
	t.Helper()
	for name, test := range map[string]func(*account){
		"an authorization is captured and refunded": captureAndRefund,
		"an authorization is voided":                void,
		"a decline is final and has a stable code":  decline,
		"a key is one operation":                    oneKey,
		"a key has one content":                     otherContent,
		"what is not there cannot be acted on":      nothingThere,
		"without an answer nothing is known":        unanswered,
		"what never left is not in flight":          neverSent,
		"all that was done is read again":           inspected,
		"an unknown id proves nothing":              notInspected,
		"the account has a name":                    accountNamed,
	} {
		t.Run(name, func(t *testing.T) { test(&account{Subject: newSubject(t), t: t}) })
	}
}

// account is a subject with one payment.
type account struct {
	Subject
	t     *testing.T
	count int
}

const amount = 4998

// newReference looks like those of the service: a TypeID of a UUIDv7.
func newReference() string {
	const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	ms, id := uint64(time.Now().UnixMilli()), make([]byte, 0, 26)
	for shift := 45; shift >= 0; shift -= 5 {
		id = append(id, alphabet[ms>>shift&31])
	}
	random := make([]byte, 16)
	_, _ = rand.Read(random) // never fails (crypto/rand)
	for _, b := range random {
		id = append(id, alphabet[b&31])
	}
	return "pay_" + string(id)
}

func (a *account) key() string {
	a.count++
	return fmt.Sprintf("%s:%d", rand.Text(), a.count)
}

func (a *account) authorization(method string) provider.Operation {
	return provider.Operation{
		Key: a.key(), Reference: newReference(), Type: provider.Authorization, Amount: amount, Currency: "EUR", PaymentMethod: method,
	}
}

// on acts on what an earlier operation did.
func (a *account) on(before provider.Operation, did provider.Result, t provider.OperationType, amount int64) provider.Operation {
	return provider.Operation{
		Key: a.key(), Reference: before.Reference, Type: t, Amount: amount, Currency: before.Currency, Parent: did.OperationID,
	}
}

// want checks every member that an outcome determines.
func (a *account) want(what string, got provider.Result, outcome provider.Outcome, code string, inFlight bool) provider.Result {
	a.t.Helper()
	if got.Outcome != outcome || got.Code != code || got.InFlight != inFlight ||
		(got.Err != nil) != (outcome == provider.Unknown) ||
		outcome == provider.Succeeded && got.OperationID == "" ||
		(got.Message != "") != (outcome == provider.Rejected) {
		a.t.Fatalf("%s: %+v, want %s %q, in flight %t", what, got, outcome, code, inFlight)
	}
	return got
}

// did sends op and sees it succeed, a resend change nothing, and a lookup find it.
func (a *account) did(op provider.Operation) provider.Result {
	a.t.Helper()
	what := string(op.Type)
	a.want(what+" looked up before", a.Patient.Lookup(a.ctx(), op), provider.NotFound, "", false)
	r := a.want(what, a.Patient.Execute(a.ctx(), op), provider.Succeeded, "", false)
	a.same(op, r)
	return r
}

// same sees a resend and a lookup give the first answer.
func (a *account) same(op provider.Operation, first provider.Result) {
	a.t.Helper()
	if again := a.Patient.Execute(a.ctx(), op); again != first {
		a.t.Errorf("a resend of the %s gave %+v, want %+v", op.Type, again, first)
	}
	if found := a.Patient.Lookup(a.ctx(), op); found != first {
		a.t.Errorf("a lookup of the %s gave %+v, want %+v", op.Type, found, first)
	}
}

// refused sends op and sees it rejected, and rejected again.
func (a *account) refused(op provider.Operation, code string) {
	a.t.Helper()
	what := string(op.Type)
	r := a.want(what, a.Patient.Execute(a.ctx(), op), provider.Rejected, code, false)
	if again := a.Patient.Execute(a.ctx(), op); again != r {
		a.t.Errorf("a resend of the %s gave %+v, want %+v", op.Type, again, r)
	}
}

func (a *account) ctx() context.Context { return a.t.Context() }
