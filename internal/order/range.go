package order

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/provider"
)

const (
	// NotOurs is a payment that the provider has under a reference that looks like ours,
	// and that is in no row here. It differs until its money is given back.
	NotOurs ChangeKind = "not_ours"
	// UnknownThere is a payment whose authorization the provider does not know. It proves
	// nothing: the key, the account or the URL is another one.
	UnknownThere ChangeKind = "unknown_at_provider"
)

// rangePart is how much of a range is compared at a time: what was seen of one part is
// kept in memory.
const rangePart = time.Hour

// RangeComparison compares all payments of a span of time with the provider.
type RangeComparison struct {
	From, To time.Time // To is excluded
	// Cursor is where an earlier comparison of the same range stopped; empty at first.
	Cursor string
	// Follow lets the books follow what is Safe, as a notification would.
	Follow bool
	// Pause is waited for before each request to the provider: the rate limit.
	Pause func(context.Context) error
	// Found is told of each difference that a second look confirmed.
	Found func(Difference) error
	// Reached is told of each cursor from which the comparison could go on.
	Reached func(cursor string) error
}

// Difference is a change of one payment. Followed: the books say so too by now.
type Difference struct {
	MerchantID, PaymentID string
	Change
	Followed bool
}

// RangeResult counts what was compared. Moving payments changed during every look. Those of
// OtherAccounts were made with another account than the provider's: it does not know them.
type RangeResult struct{ Payments, Differences, Moving, OtherAccounts int64 }

// rangeCursor is a part of the range, and in it a page of the provider's list, or, once
// that is read, our payments behind an id.
type rangeCursor struct {
	part  time.Time
	ours  bool
	after string
}

func (c rangeCursor) String() string {
	which := "list"
	if c.ours {
		which = "ours"
	}
	return fmt.Sprintf("%d/%s/%s", c.part.UnixMilli(), which, c.after)
}

// errCursor: a cursor is of another range, or was not made here.
var errCursor = errors.New("this is no cursor of a comparison of that range")

func (r RangeComparison) begin() (rangeCursor, error) {
	if r.Cursor == "" {
		return rangeCursor{part: r.From}, nil
	}
	fields := strings.SplitN(r.Cursor, "/", 3)
	if len(fields) != 3 || fields[1] != "list" && fields[1] != "ours" {
		return rangeCursor{}, errCursor
	}
	ms, err := strconv.ParseInt(fields[0], 10, 64)
	c := rangeCursor{time.UnixMilli(ms), fields[1] == "ours", fields[2]}
	if err != nil || c.part.Before(r.From.Truncate(time.Millisecond)) || !c.part.Before(r.To) {
		return rangeCursor{}, errCursor
	}
	return c, nil
}

// CompareRange lists what the provider has of the range and compares each payment of it
// with the books, and then looks at each of our payments that the list did not have. It
// can be stopped at any time and goes on from the newest cursor. A difference is
// reported once the payment was looked at by itself.
func (s *Service) CompareRange(ctx context.Context, r RangeComparison) (result RangeResult, err error) {
	c, err := r.begin()
	if err != nil {
		return result, err
	}
	use, err := s.LearnAccount(ctx)
	if err != nil {
		return result, fmt.Errorf("ask for the provider's account: %w", err)
	}
	for seen := map[string]bool{}; c.part.Before(r.To); {
		end := c.part.Add(rangePart)
		if end.After(r.To) {
			end = r.To
		}
		if c.ours {
			c.after, err = s.compareOurs(ctx, r, use.Account, c.part, end, c.after, seen, &result)
			if err == nil && c.after == "" {
				c, seen = rangeCursor{part: end}, map[string]bool{}
			}
		} else {
			c.after, err = s.compareListed(ctx, r, c.part, end, c.after, seen, &result)
			if err == nil && c.after == "" {
				c.ours = true
			}
		}
		if err != nil {
			return result, err
		}
		if r.Reached != nil && c.part.Before(r.To) {
			if err := r.Reached(c.String()); err != nil {
				return result, err
			}
		}
	}
	return result, nil
}

// compareListed compares a page of the provider's list.
func (s *Service) compareListed(ctx context.Context, r RangeComparison, from, to time.Time, cursor string, seen map[string]bool, result *RangeResult) (string, error) {
	if err := r.Pause(ctx); err != nil {
		return "", err
	}
	page, err := s.Provider.List(ctx, from, to, cursor)
	if err != nil {
		return "", err
	}
	for _, state := range page.States {
		if seen[state.Reference] || !payment.ValidID(payment.PrefixPayment, state.Reference) {
			continue
		}
		seen[state.Reference] = true
		result.Payments++
		var merchantID string
		err := s.Pool.QueryRow(ctx, `SELECT merchant_id FROM payments WHERE id = $1`, state.Reference).Scan(&merchantID)
		if errors.Is(err, pgx.ErrNoRows) {
			err = s.reportNotOurs(ctx, r, state, result)
		} else if err == nil {
			err = s.compareState(ctx, r, merchantID, state, result)
		}
		if err != nil {
			return "", fmt.Errorf("compare %s: %w", state.Reference, err)
		}
	}
	return page.Next, nil
}

// reportNotOurs asks for all of the payment, since the list may have had a part of it. A
// payment that is settled at the provider, its money given back, differs no more.
func (s *Service) reportNotOurs(ctx context.Context, r RangeComparison, listed provider.State, result *RangeResult) error {
	if err := r.Pause(ctx); err != nil {
		return err
	}
	state, err := provider.InspectListed(ctx, s.Provider, listed.Reference, listed.AuthorizationIDs())
	if err != nil || !state.Unsettled() {
		return err
	}
	return r.report(result, Difference{PaymentID: listed.Reference, Change: notOurs(listed)})
}

func notOurs(state provider.State) Change {
	c := Change{Kind: NotOurs, Subject: state.Reference, Detail: "The provider has a payment that is not in the books."}
	for _, a := range state.Authorizations {
		c.Subject, c.Amount = a.ID, a.Amount
	}
	return c
}

// compareState looks at a payment by itself only if what was listed differs.
func (s *Service) compareState(ctx context.Context, r RangeComparison, merchantID string, state provider.State, result *RangeResult) error {
	b, err := readBooks(ctx, s.Pool, merchantID, state.Reference)
	if err != nil || len(b.compare(state)) == 0 {
		return err
	}
	return s.lookAgain(ctx, r, merchantID, state.Reference, result)
}

// compareOurs looks at our payments of the part that the list did not have: those whose
// authorization the provider must know.
func (s *Service) compareOurs(ctx context.Context, r RangeComparison, account string, from, to time.Time, after string, seen map[string]bool, result *RangeResult) (string, error) {
	const most = 200
	type ours struct{ merchantID, id, account string }
	rows, err := s.Pool.Query(ctx, `
		SELECT merchant_id, id, coalesce(provider_account, (SELECT account FROM provider_accounts WHERE inherits), $5) FROM payments
		WHERE id > greatest($1, $2) AND id < $3 AND authorization_reference IS NOT NULL ORDER BY id LIMIT $4`,
		after, payment.FirstID(payment.PrefixPayment, from), payment.FirstID(payment.PrefixPayment, to), most, account)
	if err != nil {
		return "", fmt.Errorf("read payments: %w", err)
	}
	page, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o ours, err error) { return o, row.Scan(&o.merchantID, &o.id, &o.account) })
	if err != nil {
		return "", fmt.Errorf("read payments: %w", err)
	}
	for _, o := range page {
		if seen[o.id] {
			continue
		}
		if o.account != account {
			result.OtherAccounts++
			continue
		}
		result.Payments++
		if err := s.lookAgain(ctx, r, o.merchantID, o.id, result); err != nil {
			return "", fmt.Errorf("compare %s: %w", o.id, err)
		}
	}
	if len(page) < most {
		return "", nil
	}
	return page[most-1].id, nil
}

func (s *Service) lookAgain(ctx context.Context, r RangeComparison, merchantID, paymentID string, result *RangeResult) error {
	if err := r.Pause(ctx); err != nil {
		return err
	}
	look := s.Compare
	if r.Follow {
		look = s.Follow
	}
	changes, err := look(ctx, merchantID, paymentID)
	switch {
	case errors.Is(err, ErrMoving):
		result.Moving++
		return nil
	case errors.Is(err, provider.ErrUnknownID):
		changes = []Change{{Kind: UnknownThere, Subject: paymentID, Detail: "The provider does not know the payment's authorization: the key, the account or the URL may be another one."}}
	case err != nil:
		return err
	}
	for _, c := range changes {
		if err := r.report(result, Difference{merchantID, paymentID, c, r.Follow && c.Safe()}); err != nil {
			return err
		}
	}
	return nil
}

func (r RangeComparison) report(result *RangeResult, d Difference) error {
	result.Differences++
	if r.Found == nil {
		return nil
	}
	return r.Found(d)
}
