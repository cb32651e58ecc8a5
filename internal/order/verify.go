package order

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/provider"
	"payments/internal/saga"
)

// Two operators can agree on something that is not so: a reference copied from the wrong
// line takes another customer's money. So the provider is asked about a verdict before it
// is proposed and before it is approved, outside of any transaction.

// claim is a verdict on the call of a parked saga.
type claim struct {
	sagaID, account string
	kind            provider.OperationType
	data            sagaData
	verdict         Verdict
}

// verify refuses a verdict that the provider contradicts. Errors: CodeInvalid, with what is
// wrong; CodeServiceUnavailable if the provider cannot be asked. What no verdict can be
// given on is left to operators.
func (s *Service) verify(ctx context.Context, sagaID, act string, v Verdict) error {
	c := claim{sagaID: sagaID, verdict: v}
	var state saga.State
	var step string
	var raw json.RawMessage
	var proposed bool
	err := s.Pool.QueryRow(ctx, `
		SELECT state, step, data, coalesce((
			SELECT action = 'propose' FROM saga_actions a WHERE a.merchant_id = s.merchant_id AND a.saga_id = s.id ORDER BY number DESC LIMIT 1), false)
		FROM sagas s WHERE id = $1`, sagaID).Scan(&state, &step, &raw, &proposed)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && (state != saga.Parked || act == "approve" && !proposed) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read saga: %w", err)
	}
	kinds := map[string]provider.OperationType{
		stepAuthorize: provider.Authorization, stepFind: provider.Authorization, stepCapture: provider.Capture,
		undoAuthorize: provider.Void, stepVoidOrphan: provider.Void, stepRefund: provider.Refund,
	}
	if c.kind = kinds[step]; c.kind == "" {
		return nil
	}
	if c.data, err = decode(raw); err != nil {
		return err
	}
	if c.account, err = s.askable(ctx, c.data); err != nil {
		return err
	}
	if v.Verdict == VerdictRejected {
		return s.verifyRejected(ctx, c)
	}
	return s.verifySucceeded(ctx, c)
}

// askable is the account of the payment, if the service has credentials for it.
func (s *Service) askable(ctx context.Context, d sagaData) (string, error) {
	use, err := s.LearnAccount(ctx)
	if err != nil {
		return "", cannotAsk("The provider cannot be asked about the verdict.").Because(err)
	}
	account := d.Account
	if account == "" {
		account = use.inherited
	}
	if account != use.Account {
		return "", cannotAsk("The payment was made with the account " + account + ", for which this service has no credentials.")
	}
	return account, nil
}

func cannotAsk(message string) *payment.Error {
	return payment.Errorf(payment.CodeServiceUnavailable, "%s", message)
}

func untrue(pointer, code, format string, args ...any) *payment.Error {
	return &payment.Error{Code: payment.CodeInvalid, Message: "The provider contradicts the verdict.",
		Fields: []payment.FieldError{{Pointer: pointer, Code: code, Message: fmt.Sprintf(format, args...)}}}
}

func untrueReference(code, format string, args ...any) *payment.Error {
	return untrue("/verdict/reference", code, format, args...)
}

func untrueOutcome(format string, args ...any) *payment.Error {
	return untrue("/verdict/outcome", "outcome_contradicted", format, args...)
}

// key of the call that the verdict is about.
func (c claim) key() string {
	switch {
	case c.data.AuthorizationKey != "":
		return c.data.AuthorizationKey
	case c.kind == provider.Refund:
		return saga.Key(c.sagaID, stepRefund)
	}
	return saga.Key(c.sagaID, stepAuthorize)
}

func (s *Service) verifySucceeded(ctx context.Context, c claim) error {
	named := provider.Payment{Reference: c.data.PaymentID, Authorization: c.data.Authorization}
	if c.kind == provider.Authorization {
		named.Authorization = c.verdict.Reference
	}
	if named.Authorization == "" { // a refund's saga knows the capture alone
		if err := s.Pool.QueryRow(ctx, `SELECT coalesce(authorization_reference, '') FROM payments WHERE id = $1`, c.data.PaymentID).
			Scan(&named.Authorization); err != nil {
			return fmt.Errorf("read payment: %w", err)
		}
	}
	state, err := s.Provider.Inspect(ctx, named)
	switch ours := c.kind == provider.Authorization; {
	case ours && errors.Is(err, provider.ErrUnknownID):
		return untrueReference("reference_unknown", "names no authorization of this payment in the account %s", c.account)
	case ours && errors.Is(err, provider.ErrOtherPayment):
		return untrueReference("reference_of_another_payment", "is the reference of another payment")
	case err != nil:
		return cannotAsk("The provider cannot be asked about the verdict.").Because(err)
	}
	switch c.kind {
	case provider.Authorization:
		err = c.authorized(state)
	case provider.Capture:
		err = c.captured(state)
	case provider.Void:
		err = c.voided(state)
	case provider.Refund:
		err = c.refunded(state)
	}
	if err != nil {
		return err
	}
	return s.verifyFree(ctx, c)
}

// kindOf names what the payment has under an id.
func kindOf(s provider.State, id string) provider.OperationType {
	for _, a := range s.Authorizations {
		switch id {
		case a.ID:
			return provider.Authorization
		case a.Void:
			return provider.Void
		}
	}
	if slices.ContainsFunc(s.Captures, func(c provider.CaptureState) bool { return c.ID == id }) {
		return provider.Capture
	}
	if slices.ContainsFunc(s.Refunds, func(r provider.RefundState) bool { return r.ID == id }) {
		return provider.Refund
	}
	return ""
}

// notFound says why the payment has no operation of the claim's kind under the reference.
func (c claim) notFound(s provider.State) error {
	if other := kindOf(s, c.verdict.Reference); other != "" && other != c.kind {
		return untrueReference("reference_of_another_kind", "names the payment's %s; the verdict is about a %s, which has a reference of its own", other, c.kind)
	}
	return untrueReference("reference_unknown", "names no %s of this payment in the account %s", c.kind, c.account)
}

func (c claim) sameAmount(amount int64, currency string) error {
	if amount == c.data.Amount && currency == c.data.Currency {
		return nil
	}
	return untrueReference("amount_differs", "names a %s of %d %s at the provider; this one is of %d %s", c.kind, amount, currency, c.data.Amount, c.data.Currency)
}

func (c claim) authorized(s provider.State) error {
	at := slices.IndexFunc(s.Authorizations, func(a provider.AuthorizationState) bool { return a.ID == c.verdict.Reference })
	if at < 0 {
		return c.notFound(s)
	}
	a := s.Authorizations[at]
	if a.Status != provider.AuthorizationHeld && a.Status != provider.AuthorizationCaptured {
		return untrueOutcome("the provider says that the authorization is %s", a.Status)
	}
	if a.Key != "" && a.Key != c.key() {
		return untrueReference("reference_of_another_request", "names an authorization that another request of this payment made")
	}
	return c.sameAmount(a.Amount, a.Currency)
}

func (c claim) captured(s provider.State) error {
	at := slices.IndexFunc(s.Captures, func(x provider.CaptureState) bool { return x.ID == c.verdict.Reference })
	if at < 0 {
		return c.notFound(s)
	}
	if s.Captures[at].Authorization != c.data.Authorization {
		return untrueReference("reference_of_another_request", "names a capture of another authorization")
	}
	return c.sameAmount(s.Captures[at].Amount, s.Captures[at].Currency)
}

// voided holds once nothing is held and nothing taken any more: the authorization was
// released, or what was captured of it was given back.
func (c claim) voided(s provider.State) error {
	at := slices.IndexFunc(s.Authorizations, func(a provider.AuthorizationState) bool { return a.ID == c.data.Authorization })
	if at < 0 {
		return cannotAsk("The provider does not know the payment's authorization.")
	}
	switch a := s.Authorizations[at]; a.Status {
	case provider.AuthorizationVoided, provider.AuthorizationExpired:
		if c.verdict.Reference == a.Void || c.verdict.Reference == a.ID && (a.Void == "" || a.Void == a.ID) {
			return nil
		}
		return c.notFound(s)
	case provider.AuthorizationCaptured:
	case provider.AuthorizationPending, provider.AuthorizationDeclined, provider.AuthorizationHeld:
		return untrueOutcome("the provider says that the authorization is %s", a.Status)
	}
	var taken int64
	for _, x := range s.Captures {
		taken += x.Amount
	}
	named := false
	for _, r := range s.Refunds {
		if r.Status == provider.RefundSucceeded {
			taken -= r.Amount
			named = named || r.ID == c.verdict.Reference
		}
	}
	switch {
	case taken > 0:
		return untrueOutcome("the provider says that the authorization was captured, and %d of it was not refunded", taken)
	case !named:
		return untrueReference("reference_of_another_kind", "names no refund of this payment; its authorization was captured, and refunded")
	}
	return nil
}

func (c claim) refunded(s provider.State) error {
	at := slices.IndexFunc(s.Refunds, func(r provider.RefundState) bool { return r.ID == c.verdict.Reference })
	if at < 0 {
		return c.notFound(s)
	}
	r := s.Refunds[at]
	switch {
	case r.Status != provider.RefundSucceeded:
		return untrueOutcome("the provider says that the refund is %s", r.Status)
	case r.Key != "" && r.Key != c.key():
		return untrueReference("reference_of_another_request", "names another refund of this payment")
	case r.Capture != c.data.Capture:
		return untrueReference("reference_of_another_payment", "names a refund of another capture")
	}
	return c.sameAmount(r.Amount, r.Currency)
}

// verifyFree refuses a reference that another payment of the account has.
func (s *Service) verifyFree(ctx context.Context, c claim) error {
	if c.kind != provider.Authorization && c.kind != provider.Capture {
		return nil
	}
	// payments_authorization_once and payments_capture_once serve this.
	ids, err := postgres.Query(ctx, s.Pool, `
		SELECT id FROM payments WHERE authorization_reference = $1 AND coalesce(provider_account, $2) = $2 AND id <> $3
		UNION SELECT id FROM payments WHERE capture_reference = $1 AND coalesce(provider_account, $2) = $2 AND id <> $3`,
		c.verdict.Reference, c.account, c.data.PaymentID)
	if err != nil {
		return fmt.Errorf("look for the reference: %w", err)
	}
	taken, err := pgx.CollectRows(ids, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for the reference: %w", err)
	}
	if len(taken) > 0 {
		return untrueReference("reference_of_another_payment", "is the reference of %s", taken[0])
	}
	return nil
}

// verifyRejected refuses a verdict that nothing was done where something was.
func (s *Service) verifyRejected(ctx context.Context, c claim) error {
	named := provider.Payment{Reference: c.data.PaymentID, Authorization: c.data.Authorization}
	if c.kind == provider.Authorization {
		op := c.data.operation(provider.Authorization, c.key(), c.data.AuthorizationUntil)
		switch r := s.Provider.Lookup(ctx, op); {
		case r.Outcome == provider.NotFound || r.Outcome == provider.Rejected:
			return nil
		case r.Pending:
			return untrueOutcome("the provider has not decided the authorization yet")
		case r.Outcome == provider.Succeeded:
			named.Authorization = r.OperationID
		default:
			return cannotAsk("The provider cannot be asked about the verdict.").Because(r.Err)
		}
	}
	if named.Authorization == "" {
		if err := s.Pool.QueryRow(ctx, `SELECT coalesce(authorization_reference, '') FROM payments WHERE id = $1`, c.data.PaymentID).
			Scan(&named.Authorization); err != nil {
			return fmt.Errorf("read payment: %w", err)
		}
	}
	state, err := s.Provider.Inspect(ctx, named)
	if errors.Is(err, provider.ErrUnknownID) {
		return nil // it was deleted there: this is the right account
	}
	if err != nil {
		return cannotAsk("The provider cannot be asked about the verdict.").Because(err)
	}
	return c.nothingDone(state, named.Authorization)
}

func (c claim) nothingDone(s provider.State, authorization string) error {
	released := false
	for _, a := range s.Authorizations {
		switch {
		case a.ID != authorization:
		case a.Status == provider.AuthorizationVoided || a.Status == provider.AuthorizationExpired || a.Status == provider.AuthorizationDeclined:
			released = true
		case c.kind == provider.Authorization:
			return untrueOutcome("the provider says that the authorization is %s", a.Status)
		}
	}
	switch c.kind {
	case provider.Capture:
		if len(s.Captures) > 0 {
			return untrueOutcome("the provider says that the payment was captured")
		}
	case provider.Void:
		if released {
			return untrueOutcome("the provider says that the authorization was released")
		}
	case provider.Refund:
		for _, r := range s.Refunds {
			if r.Key == c.key() && r.Status != provider.RefundFailed {
				return untrueOutcome("the provider says that the refund is %s", r.Status)
			}
		}
	case provider.Authorization:
	}
	return nil
}
