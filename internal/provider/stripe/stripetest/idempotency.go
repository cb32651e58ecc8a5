package stripetest

import (
	"net/http"
	"net/url"
)

// saved is the answer that is kept under an idempotency key.
type saved struct {
	request string
	answer
}

// once is Stripe's idempotency, https://docs.stripe.com/api/idempotent_requests: an answer is
// kept once the request began to be carried out, an error too. What was refused by
// its parameters is not.
func (a *Account) once(key, path string, f url.Values, do func() answer) answer {
	if key == "" {
		return do()
	}
	request := path + "?" + f.Encode()
	if s := a.saved[key]; s != nil {
		if s.request != request {
			return answer{http.StatusBadRequest, map[string]any{"error": map[string]any{
				"type": "idempotency_error", "message": "Keys for idempotent requests can only be used with the same parameters they were first used with.",
			}}, false}
		}
		return s.answer
	}
	given := do()
	if given.keep {
		a.saved[key] = &saved{request, given}
	}
	return given
}

// ForgetKeys is 24 hours later: no idempotency key is known any more.
func (a *Account) ForgetKeys() {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	a.saved = map[string]*saved{}
}
