package order

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
	"payments/internal/provider"
	"payments/internal/saga"
)

// An operation exists at the provider only in the account that it was made with. To every
// other account it is not found, which would read as "never done". So each payment is pinned
// to the account that its first call is made with, before that call is made, and a call for
// a payment of another account is not made at all: its saga waits for the credentials.

// accountUnknown is what a saga waits for until the provider has named the account.
const accountUnknown = "the provider's account"

// learnPause is how long after a failure the provider is not asked again.
const learnPause = time.Second

// accounts is what this process knows of the provider's accounts.
type accounts struct {
	current atomic.Pointer[AccountUse] // nil: not known

	mu      sync.Mutex // of those who ask
	askedAt time.Time
}

// AccountUse is the account that this process has credentials for.
type AccountUse struct {
	Account string
	// Before is another account, if the service was used with that one last.
	Before string

	inherited string // of payments from before accounts were recorded
}

// heard forgets the account after an answer that shows that it may be another by now: the
// key was revoked, or another server answers at the URL.
func (a *accounts) heard(code string) {
	if code == provider.CodeAccessRefused || code == provider.CodeOtherAccount {
		a.current.Store(nil)
	}
}

// Account is the account in use, or "" while it is not known.
func (s *Service) Account() string {
	if use := s.accounts.current.Load(); use != nil {
		return use.Account
	}
	return ""
}

// Prepare is LearnAccount for a worker that is about to drive a saga: at most one at a
// time asks the provider, and not again right after a failure.
func (s *Service) Prepare(ctx context.Context) {
	if s.accounts.current.Load() != nil {
		return
	}
	s.accounts.mu.Lock()
	defer s.accounts.mu.Unlock()
	if s.accounts.current.Load() != nil || s.IDs.Now().Sub(s.accounts.askedAt) < learnPause {
		return
	}
	_, _ = s.learn(ctx) // what it does not find out, its sagas wait for
}

// LearnAccount asks the provider for the account of the credentials, unless it is known,
// and lets the sagas that wait for that account go on. A Former one has them claimed by Only.
func (s *Service) LearnAccount(ctx context.Context) (AccountUse, error) {
	s.accounts.mu.Lock()
	defer s.accounts.mu.Unlock()
	if use := s.accounts.current.Load(); use != nil {
		return *use, nil
	}
	return s.learn(ctx)
}

func (s *Service) learn(ctx context.Context) (use AccountUse, err error) {
	defer func() { s.accounts.askedAt = s.IDs.Now() }()
	if use.Account, err = s.Provider.Account(ctx); err != nil {
		return AccountUse{}, err
	}
	if s.Former {
		if err := s.Pool.QueryRow(ctx, `SELECT coalesce((SELECT account FROM provider_accounts WHERE inherits), $1)`, use.Account).Scan(&use.inherited); err != nil {
			return AccountUse{}, fmt.Errorf("read the provider's account: %w", err)
		}
		s.accounts.current.Store(&use)
		return use, nil
	}
	err = postgres.InTx(ctx, s.Pool, func(tx pgx.Tx) error {
		// The first account of all inherits; provider_accounts_one_heir lets one be that.
		if err := tx.QueryRow(ctx, `
			WITH before AS (SELECT account FROM provider_accounts ORDER BY last_used_at DESC LIMIT 1),
			used AS (
				INSERT INTO provider_accounts (account, inherits) VALUES ($1, NOT EXISTS (SELECT FROM provider_accounts))
				ON CONFLICT (account) DO UPDATE SET last_used_at = clock_timestamp() RETURNING account, inherits)
			SELECT coalesce((SELECT account FROM before WHERE account <> $1), ''),
				coalesce((SELECT account FROM used WHERE inherits), (SELECT account FROM provider_accounts WHERE inherits))`, use.Account).
			Scan(&use.Before, &use.inherited); err != nil {
			return fmt.Errorf("record the provider's account: %w", err)
		}
		return saga.Provide(ctx, tx, use.Account, accountUnknown)
	})
	if err != nil {
		return AccountUse{}, err
	}
	s.accounts.current.Store(&use)
	s.Due()
	return use, nil
}

// ready pins a saga to an account before its first call, and names the account that its
// calls lack credentials for.
func (s *Service) ready(i *saga.Instance) (lacks string, err error) {
	d, err := decode(i.Data)
	if err != nil {
		return "", nil //nolint:nilerr // the call itself says so, and sends nothing
	}
	use := s.accounts.current.Load()
	if use == nil {
		return accountUnknown, nil
	}
	if d.Account == "" {
		if d.Account = use.Account; s.Former {
			d.Account = ""
		}
		// From before accounts were recorded, and known to the provider already.
		if i.Attempted || i.Intent || d.Authorization != "" || d.Capture != "" || d.AuthorizationKey != "" {
			d.Account = use.inherited
		}
		if i.Data, err = d.encode(); err != nil {
			return "", err
		}
	}
	switch d.Account {
	case use.Account:
		return "", nil
	case "":
		return accountUnknown, nil
	}
	return d.Account, nil
}

// Only is for saga.Config: a worker of a former account claims the sagas that wait for that
// account, and begins none. Another worker claims any.
func (s *Service) Only() func() string {
	if s.Former {
		return s.Account
	}
	return nil
}
