package providertest

import (
	"context"
	"strings"
	"sync"
	"time"

	"payments/internal/provider"
)

func captureAndRefund(a *account) {
	auth := a.authorization(a.Good)
	held := a.did(auth)
	a.refused(a.on(auth, held, provider.Capture, amount+1), "amount_too_large")
	capture := a.on(auth, held, provider.Capture, amount)
	taken := a.did(capture)
	a.refused(a.on(auth, held, provider.Capture, amount), "already_captured")
	a.refused(a.on(auth, held, provider.Void, amount), "already_captured")
	first, second := a.on(capture, taken, provider.Refund, 1000), a.on(capture, taken, provider.Refund, 1000)
	one, two := a.did(first), a.did(second)
	if one.OperationID == two.OperationID {
		a.t.Error("a second refund under another key is the first")
	}
	a.refused(a.on(capture, taken, provider.Refund, amount-2000+1), "refund_exceeds_capture")
	a.did(a.on(capture, taken, provider.Refund, amount-2000))
	a.refused(a.on(capture, taken, provider.Refund, 1), "refund_exceeds_capture")
	// What came after it does not change what the authorization was.
	a.same(auth, held)
	a.same(capture, taken)
}

func void(a *account) {
	auth := a.authorization(a.Good)
	held := a.did(auth)
	undo := a.on(auth, held, provider.Void, 0)
	a.did(undo)
	a.refused(a.on(auth, held, provider.Capture, amount), "authorization_voided")
	a.refused(a.on(auth, held, provider.Void, 0), "already_voided")
	a.same(auth, held)

	partly := a.authorization(a.Good)
	held = a.did(partly)
	a.did(a.on(partly, held, provider.Capture, 1))
}

func decline(a *account) {
	auth := a.authorization(a.Declined)
	refused := a.want("authorization", a.Patient.Execute(a.ctx(), auth), provider.Rejected, a.DeclineCode, false)
	a.same(auth, refused)
	other := a.want("another", a.Patient.Execute(a.ctx(), a.authorization(a.Declined)), provider.Rejected, a.DeclineCode, false)
	if other.OperationID == refused.OperationID {
		a.t.Error("two declined authorizations are one operation")
	}
	a.refused(a.authorization("pm_card_unheard_of"), "invalid_payment_method")
}

// oneKey sends at once. A request that meets another of its key may be told so.
func oneKey(a *account) {
	auth := a.authorization(a.Good)
	const requests = 10
	results := make(chan provider.Result, requests)
	var all sync.WaitGroup
	for range requests {
		all.Go(func() { results <- a.Patient.Execute(a.ctx(), auth) })
	}
	all.Wait()
	close(results)
	held := a.want("lookup", a.Patient.Lookup(a.ctx(), auth), provider.Succeeded, "", false)
	for r := range results {
		if r.Outcome != provider.Unknown && r != held {
			a.t.Errorf("%+v and %+v under one key", r, held)
		}
	}
	other := auth
	other.Key = a.key()
	a.want("lookup by another key", a.Patient.Lookup(a.ctx(), other), provider.NotFound, "", false)
	other = auth
	other.Reference = newReference()
	a.want("lookup by another reference", a.Patient.Lookup(a.ctx(), other), provider.NotFound, "", false)
}

func otherContent(a *account) {
	auth := a.authorization(a.Good)
	held := a.did(auth)
	other := auth
	other.Amount++
	a.want("authorization of another amount", a.Patient.Execute(a.ctx(), other), provider.Unknown, "", false)
	a.want("its lookup", a.Patient.Lookup(a.ctx(), other), provider.Unknown, "", false)
	capture := a.on(auth, held, provider.Capture, amount)
	capture.Key = auth.Key
	a.want("a capture under the authorization's key", a.Patient.Execute(a.ctx(), capture), provider.Unknown, "", false)
	a.want("its lookup", a.Patient.Lookup(a.ctx(), capture), provider.NotFound, "", false)
	a.same(auth, held)
}

// nothingThere acts on ids that the provider is said to have given, and does not know: it is
// another account, and says nothing about the operation.
func nothingThere(a *account) {
	auth := a.authorization(a.Good)
	none := provider.Result{OperationID: "pi_0000000000000000"}
	for _, t := range []provider.OperationType{provider.Capture, provider.Void, provider.Refund} {
		if t == provider.Refund {
			none.OperationID = "ch_0000000000000000"
		}
		op := a.on(auth, none, t, amount)
		if t == provider.Void {
			op.Amount = 0
		}
		a.want(string(t), a.Patient.Execute(a.ctx(), op), provider.Unknown, provider.CodeUnknownParent, false)
		if r := a.Patient.Lookup(a.ctx(), op); r.Outcome != provider.Unknown || r.Code != provider.CodeUnknownParent {
			a.t.Errorf("the lookup of a %s of nothing: %+v", t, r)
		}
	}
}

// accountNamed asks twice, and before and after something was done.
func accountNamed(a *account) {
	first, err := a.Patient.Account(a.ctx())
	if err != nil || !strings.HasPrefix(first, a.Patient.Name()+":") {
		a.t.Fatalf("the account is %q, %v", first, err)
	}
	a.did(a.authorization(a.Good))
	if again, err := a.Patient.Account(a.ctx()); err != nil || again != first {
		a.t.Errorf("the account was %q and is %q, %v", first, again, err)
	}
	if named, err := a.Dead.Account(a.ctx()); err == nil {
		a.t.Errorf("an address where nobody is has the account %q", named)
	}
}

func unanswered(a *account) {
	for _, s := range []Strike{Applied, Lost} {
		auth := a.authorization(a.Good)
		held := a.struck(s, auth)
		capture := a.on(auth, held, provider.Capture, amount)
		taken := a.struck(s, capture)
		a.struck(s, a.on(capture, taken, provider.Refund, amount))
		second := a.authorization(a.Good)
		a.struck(s, a.on(second, a.did(second), provider.Void, 0))
	}
}

// struck is what a saga does with an operation whose answer never came.
func (a *account) struck(s Strike, op provider.Operation) provider.Result {
	a.t.Helper()
	undo := a.Strike(s, op.Type)
	what := string(op.Type) + ", " + string(s)
	a.want(what, a.Hasty.Execute(a.ctx(), op), provider.Unknown, "", true)
	undo()
	want := provider.Succeeded
	if s == Lost {
		want = provider.NotFound
	}
	var found provider.Result
	eventually(a, what+": the lookup gives "+want.String(), func() bool {
		found = a.Patient.Lookup(a.ctx(), op)
		return found.Outcome == want
	})
	a.want(what+", looked up", found, want, "", false)
	r := a.want(what+", sent again", a.Patient.Execute(a.ctx(), op), provider.Succeeded, "", false)
	if s == Applied && r != found {
		a.t.Errorf("%s: the resend gave %+v, want %+v", what, r, found)
	}
	a.same(op, r)
	return r
}

func eventually(a *account, what string, condition func() bool) {
	a.t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.After(20 * time.Second); !condition(); {
		select {
		case <-poll.C:
		case <-deadline:
			a.t.Fatal("did not happen: " + what)
		}
	}
}

func neverSent(a *account) {
	auth := a.authorization(a.Good)
	a.want("before an address where nobody is", a.Dead.Execute(a.ctx(), auth), provider.Unknown, "", false)
	a.want("its lookup", a.Dead.Lookup(a.ctx(), auth), provider.Unknown, "", false)
	ended, end := context.WithCancel(a.ctx())
	end()
	a.want("by a caller that is gone", a.Patient.Execute(ended, auth), provider.Unknown, "", false)
	for _, t := range []provider.OperationType{provider.Capture, provider.Void, provider.Refund} {
		a.want(string(t)+" of nothing", a.Patient.Execute(a.ctx(), a.on(auth, provider.Result{}, t, 1)), provider.Unknown, "", false)
	}
	auth.Key = ""
	a.want("without a key", a.Patient.Execute(a.ctx(), auth), provider.Unknown, "", false)
	a.want("lookup without a key", a.Patient.Lookup(a.ctx(), auth), provider.Unknown, "", false)
}
