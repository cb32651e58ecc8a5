package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"

	"payments/internal/provider"
)

// claim is what the write model says of a payment that the provider can confirm.
type claim struct {
	ID, MerchantID, Status, Currency                string
	Sequence, Amount, Captured, Refunded, Refunding int64
	Authorization, Capture                          string // the provider's ids
	// Searching says that a saga is looking for a hold that came after the order had
	// turned back, to void it.
	Searching bool
	Account   string // that it was made with; "": none yet
	CreatedAt time.Time
	UpdatedAt time.Time // of the payment and its refunds
}

const selectClaims = `
	SELECT p.id, p.merchant_id, p.status, p.currency, o.sequence, p.amount, p.amount_captured, p.amount_refunded, p.amount_refunding,
		coalesce(p.authorization_reference, ''), coalesce(p.capture_reference, ''), p.status IN ('failed', 'canceled') AND EXISTS (
			SELECT FROM sagas s WHERE s.merchant_id = p.merchant_id AND s.definition = 'orphan_void'
				AND s.subject >= p.id AND s.subject < p.id || '0' AND s.state NOT IN ('completed', 'compensated')),
		coalesce(p.provider_account, (SELECT account FROM provider_accounts WHERE inherits AND p.authorization_reference IS NOT NULL), ''),
		p.created_at, greatest(p.updated_at, o.updated_at)
	FROM payments p JOIN orders o ON o.merchant_id = p.merchant_id AND o.id = p.order_id WHERE `

func (a Audit) claims(ctx context.Context, where string, args ...any) ([]claim, error) {
	rows, err := a.Write.Query(ctx, selectClaims+where, args...)
	if err == nil {
		var all []claim
		if all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[claim]); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read the write model: %w", err)
}

// ledger is the comparison with the provider under way.
type ledger struct {
	Audit
	once, agrees Finding
	begun        time.Time // by the database's clock, before the provider's list was read
	account      string    // the provider's, whose payments alone it knows
	elsewhere    int64     // payments of other accounts
}

// compareLedger reads the provider's list of payments first and the payments then, so that
// what the provider has done is known here; what is claimed here must have been listed if
// it was written before the list was begun. A difference is looked at again, payment by
// payment, and is a violation if the payment did not move around that look.
func (a Audit) compareLedger(ctx context.Context) ([]Finding, error) {
	l := &ledger{
		Audit:  a,
		once:   Finding{Invariant: 2, Name: "at the provider: one authorization, one capture at most"},
		agrees: Finding{Invariant: 3, Name: "a terminal payment agrees with the provider"},
	}
	if a.Provider == nil {
		l.once.Note, l.agrees.Note = "no provider was given to compare with", "no provider was given to compare with"
		return []Finding{l.once, l.agrees}, nil
	}
	if err := a.Write.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&l.begun); err != nil {
		return nil, fmt.Errorf("read the database's clock: %w", err)
	}
	if err := l.patiently(ctx, func() (err error) {
		l.account, err = l.Provider.Account(ctx)
		return err
	}); err != nil {
		return nil, fmt.Errorf("read the provider's ledger: %w", err)
	}
	listed := newSpool(a.Dir)
	defer listed.close()
	if err := l.list(ctx, listed); err != nil {
		return nil, fmt.Errorf("read the provider's ledger: %w", err)
	}
	states, err := listed.sorted()
	if err != nil {
		return nil, err
	}
	if err := l.merge(ctx, states); err != nil {
		return nil, err
	}
	switch {
	case l.elsewhere > 0 && l.agrees.Counted == 0:
		l.agrees.violate("none of %d payments was made with the account %s: the credentials may be the wrong ones", l.elsewhere, l.account)
	case l.elsewhere > 0:
		l.agrees.Note = fmt.Sprintf("%d payments were made with another account than %s: an audit with that account's credentials compares them", l.elsewhere, l.account)
	}
	return []Finding{l.once, l.agrees}, nil
}

const (
	// attempts at one page of the provider's list, with a pause that doubles.
	attempts     = 6
	attemptPause = 250 * time.Millisecond
)

func (l *ledger) list(ctx context.Context, into *spool) error {
	from, to := l.From, l.To
	if from.IsZero() {
		from = time.Unix(0, 0)
	}
	if to.IsZero() {
		to = time.Now().Add(24 * time.Hour) // the provider's clock may be ahead
	} else {
		to = to.Add(24 * time.Hour) // what was done after the payment was made
	}
	cursor := ""
	for {
		var page provider.Page
		err := l.patiently(ctx, func() (err error) {
			page, err = l.Provider.List(ctx, from, to, cursor)
			return err
		})
		if err != nil {
			return err
		}
		for _, s := range page.States {
			if s.Reference == "" {
				continue // somebody else's
			}
			document, err := json.Marshal(s)
			if err == nil {
				err = into.add(s.Reference, document)
			}
			if err != nil {
				return err
			}
			l.once.Counted++
		}
		l.done("payments at the provider", l.once.Counted)
		if cursor = page.Next; cursor == "" {
			return nil
		}
	}
}

// patiently tries again what may pass: a rate limit, a connection that was cut.
func (l *ledger) patiently(ctx context.Context, try func() error) (err error) {
	for n := range attempts {
		if err = try(); err == nil || ctx.Err() != nil || n == attempts-1 || errors.Is(err, provider.ErrUnknownID) {
			return err
		}
		select {
		case <-time.After(attemptPause << n):
		case <-ctx.Done():
		}
	}
	return err
}

// merge walks payments and listed states by the payments' ids, in the order of bytes.
func (l *ledger) merge(ctx context.Context, states *merged) error {
	after := ""
	for {
		page, err := l.claims(ctx, `p.id > $1 AND ($2::timestamptz IS NULL OR p.created_at >= $2) AND ($3::timestamptz IS NULL OR p.created_at < $3)
			ORDER BY p.id LIMIT $4`, after, zeronull.Timestamptz(l.From), zeronull.Timestamptz(l.To), pageSize)
		if err != nil {
			return err
		}
		var differ []listed
		for _, c := range page {
			for {
				key, ok := states.peek()
				if !ok || key >= c.ID {
					break
				}
				alone, err := takeListed(states) // no payment in the span has this reference
				if err != nil {
					return err
				}
				differ = append(differ, alone)
			}
			s := provider.State{Reference: c.ID}
			if key, ok := states.peek(); ok && key == c.ID {
				if s, err = takeState(states); err != nil {
					return err
				}
			}
			if c.Account != "" && c.Account != l.account {
				if l.elsewhere++; len(s.Authorizations)+len(s.Captures)+len(s.Refunds) > 0 {
					l.agrees.violate("%s was made with the account %s, and the account %s has operations of it", c.ID, c.Account, l.account)
				}
				continue
			}
			l.agrees.Counted++
			if once, agrees := c.judge(s, l.Settled || c.UpdatedAt.Before(l.begun)); len(once)+len(agrees) > 0 {
				differ = append(differ, listed{c.ID, s.AuthorizationIDs()})
			}
		}
		last := len(page) < pageSize
		for last { // what is listed behind the last payment
			if _, ok := states.peek(); !ok {
				break
			}
			alone, err := takeListed(states)
			if err != nil {
				return err
			}
			differ = append(differ, alone)
		}
		if err := l.confirm(ctx, differ); err != nil {
			return err
		}
		l.done(l.agrees.Name, l.agrees.Counted)
		if last {
			return nil
		}
		after = page[len(page)-1].ID
	}
}

// takeState makes one state of all that were listed of a payment: a payment can be in
// several pages, and can have several authorizations. What was listed later counts.
func takeState(states *merged) (s provider.State, err error) {
	key, values, err := states.take()
	if err != nil {
		return s, err
	}
	s.Reference = key
	for _, v := range values {
		var one provider.State
		if err := json.Unmarshal(v, &one); err != nil {
			return s, fmt.Errorf("read a temporary file: %w", err)
		}
		s.Join(one)
	}
	return s, nil
}

// listed is a payment that is to be looked at again, with its authorizations of the list.
type listed struct {
	reference      string
	authorizations []string
}

func takeListed(states *merged) (listed, error) {
	s, err := takeState(states)
	return listed{s.Reference, s.AuthorizationIDs()}, err
}

// confirm looks at each payment again: the claim, the provider, and the claim once more.
func (l *ledger) confirm(ctx context.Context, differ []listed) error {
	for i, p := range differ {
		if l.once.full() || l.agrees.full() {
			l.agrees.Unnamed += int64(len(differ) - i) // unconfirmed
			return nil
		}
		if err := l.confirmOne(ctx, p); err != nil {
			return fmt.Errorf("compare %s with the provider: %w", p.reference, err)
		}
	}
	return nil
}

func (l *ledger) confirmOne(ctx context.Context, p listed) error {
	reference := p.reference
	for look := range maxLooks {
		if look > 0 {
			if err := l.wait(ctx); err != nil {
				return err
			}
		}
		before, err := l.claims(ctx, `p.id = $1`, reference)
		if err != nil {
			return err
		}
		var s provider.State
		if len(before) == 0 {
			err = l.patiently(ctx, func() (err error) {
				s, err = provider.InspectListed(ctx, l.Provider, reference, p.authorizations)
				return err
			})
			if err == nil && s.Unsettled() {
				l.agrees.violate("%s is at the provider only", reference)
			}
			return err
		}
		err = l.patiently(ctx, func() (err error) {
			s, err = l.Provider.Inspect(ctx, provider.Payment{Reference: reference, Authorization: before[0].Authorization})
			return err
		})
		unknown := errors.Is(err, provider.ErrUnknownID)
		if err != nil && !unknown {
			return err
		}
		after, err := l.claims(ctx, `p.id = $1`, reference)
		if err != nil {
			return err
		}
		if len(after) != 1 || after[0] != before[0] {
			continue
		}
		if unknown {
			l.agrees.violate("%s names an authorization that the provider does not know: it is a forged one, or the key or account is another", reference)
			return nil
		}
		once, agrees := after[0].judge(s, true)
		for _, what := range once {
			l.once.violate("%s %s", reference, what)
		}
		for _, what := range agrees {
			l.agrees.violate("%s %s", reference, what)
		}
		return nil
	}
	return nil
}

// judge compares the claim with what the provider has. It says nothing of what was claimed
// after the provider was asked, unless all that is claimed had been written before.
func (c claim) judge(s provider.State, claimed bool) (once, agrees []string) {
	two := func(format string, args ...any) { once = append(once, fmt.Sprintf(format, args...)) }
	differs := func(format string, args ...any) { agrees = append(agrees, fmt.Sprintf(format, args...)) }
	authorizations := map[string]provider.AuthorizationStatus{}
	held := 0
	for _, a := range s.Authorizations {
		switch a.Status {
		case provider.AuthorizationHeld:
			held++
		case provider.AuthorizationDeclined, provider.AuthorizationPending:
			continue
		case provider.AuthorizationCaptured, provider.AuthorizationVoided, provider.AuthorizationExpired:
		}
		authorizations[a.ID] = a.Status
		if a.Currency != c.Currency {
			differs("has another currency at the provider")
		}
	}
	var captured, refunded, pending int64
	captures := map[string]bool{}
	for _, k := range s.Captures {
		captured += k.Amount
		captures[k.ID] = true
		if k.Currency != c.Currency {
			differs("has another currency at the provider")
		}
		if _, ok := authorizations[k.Authorization]; !ok {
			differs("has a capture of an authorization that is not this payment's")
		}
	}
	for _, r := range s.Refunds {
		switch r.Status {
		case provider.RefundSucceeded:
			refunded += r.Amount
		case provider.RefundPending:
			pending += r.Amount
		case provider.RefundFailed:
		}
	}
	if len(authorizations) > 1 || len(s.Captures) > 1 {
		two("has %d authorizations and %d captures", len(authorizations), len(s.Captures))
	}
	if refunded > captured {
		two("was refunded %d of %d captured", refunded, captured)
	}
	// What is under way here may be done there. What was taken of a failed payment outside of
	// the service is given back there, too.
	terminal := c.Status == "failed" || c.Status == "canceled"
	if refunded > c.Refunded+c.Refunding && !terminal {
		differs("has %d refunded and %d under way; the provider refunded %d", c.Refunded, c.Refunding, refunded)
	}
	if terminal && captured != refunded+pending {
		differs("is %s; the provider took %d", c.Status, captured-refunded)
	}
	if !claimed {
		return once, agrees
	}
	if refunded+pending < c.Refunded {
		differs("has %d refunded; the provider refunded %d", c.Refunded, refunded)
	}
	if _, ok := authorizations[c.Authorization]; c.Authorization != "" && !ok {
		differs("names an authorization that the provider does not have of it")
	}
	if c.Capture != "" && !captures[c.Capture] {
		differs("names a capture that the provider does not have of it")
	}
	switch {
	case c.Status == "succeeded" && (captured != c.Amount || c.Captured != c.Amount):
		differs("succeeded with %d; the provider captured %d", c.Amount, captured)
	case c.Status != "succeeded" && captured < c.Captured:
		differs("has %d captured; the provider captured %d", c.Captured, captured)
	case terminal && held > 0 && !c.Searching:
		differs("is %s; the provider holds %d authorizations", c.Status, held)
	}
	return once, agrees
}
