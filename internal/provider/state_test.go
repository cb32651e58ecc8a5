package provider_test

import (
	"testing"

	"payments/internal/provider"
)

func TestWhatIsUnsettled(t *testing.T) {
	state := func(status provider.AuthorizationStatus, change ...func(*provider.State)) provider.State {
		s := provider.State{Authorizations: []provider.AuthorizationState{{ID: "a", Status: status, Amount: 100}}}
		for _, c := range change {
			c(&s)
		}
		return s
	}
	capture := func(s *provider.State) {
		s.Captures = append(s.Captures, provider.CaptureState{ID: "c", Authorization: "a", Amount: 100})
	}
	refund := func(status provider.RefundStatus, amount int64) func(*provider.State) {
		return func(s *provider.State) {
			s.Refunds = append(s.Refunds, provider.RefundState{ID: "r", Capture: "c", Status: status, Amount: amount})
		}
	}
	dispute := func(status provider.DisputeStatus) func(*provider.State) {
		return func(s *provider.State) {
			s.Disputes = append(s.Disputes, provider.DisputeState{ID: "d", Capture: "c", Status: status, Amount: 100})
		}
	}
	for name, c := range map[string]struct {
		state provider.State
		want  bool
	}{
		"nothing is told":                       {provider.State{}, true},
		"held":                                  {state(provider.AuthorizationHeld), true},
		"pending":                               {state(provider.AuthorizationPending), true},
		"captured, of which nothing is told":    {state(provider.AuthorizationCaptured), true},
		"captured":                              {state(provider.AuthorizationCaptured, capture), true},
		"refunded in part":                      {state(provider.AuthorizationCaptured, capture, refund(provider.RefundSucceeded, 99)), true},
		"a refund is pending":                   {state(provider.AuthorizationCaptured, capture, refund(provider.RefundPending, 100)), true},
		"refunded":                              {state(provider.AuthorizationCaptured, capture, refund(provider.RefundSucceeded, 100)), false},
		"a dispute is open":                     {state(provider.AuthorizationCaptured, capture, dispute(provider.DisputeOpen)), true},
		"refunded, and then disputed":           {state(provider.AuthorizationCaptured, capture, refund(provider.RefundSucceeded, 100), dispute(provider.DisputeOpen)), true},
		"a dispute is lost, which took it back": {state(provider.AuthorizationCaptured, capture, dispute(provider.DisputeLost)), false},
		"a dispute is won":                      {state(provider.AuthorizationCaptured, capture, dispute(provider.DisputeWon)), true},
	} {
		if got := c.state.Unsettled(); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}
