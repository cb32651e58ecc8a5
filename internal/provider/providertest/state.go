package providertest

import (
	"errors"
	"slices"
	"time"

	"payments/internal/provider"
)

// inspected holds what Inspect and List say against what was done.
func inspected(a *account) {
	began := time.Now().Add(-time.Minute)
	auth := a.authorization(a.Good)
	held := a.did(auth)
	if s := a.inspect(auth, held); len(s.Authorizations) != 1 || s.Authorizations[0].Status != provider.AuthorizationHeld ||
		s.Authorizations[0].Key != auth.Key || s.Authorizations[0].Amount != amount || s.Authorizations[0].Currency != "EUR" || len(s.Captures) != 0 {
		a.t.Errorf("held: %+v", s)
	}
	capture := a.on(auth, held, provider.Capture, amount)
	taken := a.did(capture)
	first := a.did(a.on(capture, taken, provider.Refund, 1000))
	second := a.on(capture, taken, provider.Refund, 500)
	a.did(second)
	s := a.inspect(auth, held)
	if s.Authorizations[0].Status != provider.AuthorizationCaptured || len(s.Captures) != 1 || s.Captures[0].ID != taken.OperationID ||
		s.Captures[0].Key != capture.Key || s.Captures[0].Authorization != held.OperationID || s.Captures[0].Amount != amount {
		a.t.Errorf("captured: %+v", s)
	}
	if len(s.Refunds) != 2 || s.Refunds[0].ID != first.OperationID || s.Refunds[0].Amount != 1000 || s.Refunds[1].Key != second.Key ||
		s.Refunds[1].Status != provider.RefundSucceeded || len(s.Disputes) != 0 {
		a.t.Errorf("refunded: %+v", s)
	}

	undone := a.authorization(a.Good)
	released := a.did(undone)
	a.did(a.on(undone, released, provider.Void, 0))
	if s := a.inspect(undone, released); s.Authorizations[0].Status != provider.AuthorizationVoided || len(s.Captures)+len(s.Refunds) != 0 {
		a.t.Errorf("voided: %+v", s)
	}

	refused := a.authorization(a.Declined)
	a.Patient.Execute(a.ctx(), refused)
	want := []provider.State{s, a.inspect(undone, released)}
	found := map[string]provider.State{}
	for cursor, pages := "", 0; ; pages++ {
		page, err := a.Patient.List(a.ctx(), began, time.Now().Add(time.Minute), cursor)
		if err != nil || pages > 20 {
			a.t.Fatalf("page %d: %v", pages, err)
		}
		for _, s := range page.States {
			found[s.Reference] = s
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	for _, w := range want {
		got := found[w.Reference]
		if !slices.Equal(got.Authorizations, w.Authorizations) || !slices.Equal(got.Captures, w.Captures) || !slices.Equal(got.Refunds, w.Refunds) {
			a.t.Errorf("listed %+v, inspected %+v", got, w)
		}
	}
	if s := found[refused.Reference]; len(s.Authorizations) != 1 || s.Authorizations[0].Status != provider.AuthorizationDeclined {
		a.t.Errorf("a declined authorization is listed as %+v", s)
	}
	page, err := a.Patient.List(a.ctx(), began.Add(-2*time.Hour), began.Add(-time.Hour), "")
	if err != nil || len(page.States) != 0 {
		a.t.Errorf("before anything was done: %+v, %v", page, err)
	}
}

// notInspected sees that an id of another account proves nothing.
func notInspected(a *account) {
	auth := a.authorization(a.Good)
	a.did(auth)
	if s, err := a.Patient.Inspect(a.ctx(), provider.Payment{Reference: auth.Reference, Authorization: "pi_of_another_account"}); !errors.Is(err, provider.ErrUnknownID) {
		a.t.Errorf("an id that is not known: %+v, %v", s, err)
	}
	if s, err := a.Dead.Inspect(a.ctx(), provider.Payment{Reference: auth.Reference, Authorization: "pi_1"}); err == nil || errors.Is(err, provider.ErrUnknownID) {
		a.t.Errorf("nobody answered: %+v, %v", s, err)
	}
	if page, err := a.Dead.List(a.ctx(), time.Now().Add(-time.Hour), time.Now(), ""); err == nil {
		a.t.Errorf("nobody answered: %+v", page)
	}
	if page, err := a.Patient.List(a.ctx(), time.Now().Add(-time.Hour), time.Now(), "no cursor"); err == nil {
		a.t.Errorf("a cursor that List did not make: %+v", page)
	}
}

func (a *account) inspect(auth provider.Operation, held provider.Result) provider.State {
	a.t.Helper()
	s, err := a.Patient.Inspect(a.ctx(), provider.Payment{Reference: auth.Reference, Authorization: held.OperationID})
	if err != nil || s.Reference != auth.Reference || len(s.Authorizations) != 1 || s.Authorizations[0].ID != held.OperationID {
		a.t.Fatalf("%+v, %v", s, err)
	}
	return s
}
