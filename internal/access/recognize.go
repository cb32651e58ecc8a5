package access

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
)

const (
	// maxRemembered keys are recognized by memory, the newest and the last used ones.
	maxRemembered = 50_000
	// A flood of wrong keys causes one look at the new keys in learnPause, and one at all of them
	// in learnAllPause.
	learnPause    = time.Second
	learnAllPause = 10 * time.Minute
	// idSlack is how far the clocks that made the ids of two keys may be apart.
	idSlack = time.Hour
)

// memory has the MACs of keys that exist, so that a wrong secret is told from a right one without
// a query. It never lets anybody in: whether a key is live, and from where, is read from the
// database at each request.
type memory struct {
	macs *lru.Cache[string, []byte]

	learning    sync.Mutex
	learned     time.Time
	learnedAll  time.Time
	newestKeyID string
}

func newMemory() *memory {
	macs, _ := lru.New[string, []byte](maxRemembered) // fails for a size below 1 alone
	return &memory{macs: macs}
}

// AuthenticateWithin is Authenticate with a limit on lookups of what is not recognized. limit is
// asked before any query, with the id of the key, or "" when the text is no key. Where it
// refuses, its error is the answer, without a query, unless memory has the MAC of the very secret:
// who has a key is not refused for what others do. That memory is renewed then, at most once
// a second.
//
// Up to the limit a wrong key costs what it costs in Authenticate, whether its id exists or not;
// beyond it, no kind of wrong key costs a query.
func (a *Authenticator) AuthenticateWithin(ctx context.Context, bearer string, from netip.Addr, limit func(keyID string) error) (Principal, error) {
	if limit == nil {
		return a.Authenticate(ctx, bearer, from)
	}
	p := a.present(bearer)
	known := a.recognize(p)
	if known == nil {
		if limited := limit(p.given); limited != nil {
			if err := a.learn(ctx); err != nil {
				return Principal{}, err
			}
			if known = a.recognize(p); known == nil {
				return Principal{}, limited
			}
		}
	}
	principal, err := a.authenticate(ctx, p, from, known)
	if e, ok := errors.AsType[*payment.Error](err); ok && e.Code == payment.CodeUnauthenticated && known != nil {
		a.memory.macs.Remove(p.KeyID) // a key that was revoked is limited like any other
	}
	return principal, err
}

// recognize gives the MAC of the credential if memory has it. The work is the same for a key that
// is not remembered.
func (a *Authenticator) recognize(p presented) []byte {
	mac, ok := a.memory.macs.Get(p.KeyID)
	if !ok {
		mac = a.dummyMAC
	}
	if !a.pepper.Verify(mac, []byte(p.maced)) || !p.valid() {
		return nil
	}
	return mac
}

// learn reads the MACs of keys that came since the last time, and now and then those of all live
// keys. It does nothing while another request does it, or has done it within learnPause.
func (a *Authenticator) learn(ctx context.Context) error {
	m := a.memory
	if !m.learning.TryLock() {
		return nil
	}
	defer m.learning.Unlock()
	now := time.Now()
	if now.Sub(m.learned) < learnPause {
		return nil
	}
	after := "" // all
	if now.Sub(m.learnedAll) < learnAllPause {
		after = keysSince(m.newestKeyID)
	}
	rows, err := a.pool.Query(ctx, `
		SELECT id, mac FROM api_keys WHERE id > $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
		ORDER BY id DESC LIMIT $2`, after, maxRemembered)
	if err != nil {
		return fmt.Errorf("learn api keys: %w", err)
	}
	var id string
	var mac []byte
	newest := m.newestKeyID
	if _, err := pgx.ForEachRow(rows, []any{&id, &mac}, func() error {
		m.macs.Add(id, append([]byte(nil), mac...))
		newest = max(newest, id)
		return nil
	}); err != nil {
		return fmt.Errorf("learn api keys: %w", err)
	}
	m.newestKeyID, m.learned = newest, now
	if after == "" {
		m.learnedAll = now
	}
	return nil
}

// keysSince sorts before the ids of all keys that came after the one with the id, whichever
// process made them.
func keysSince(id string) string {
	made, ok := payment.IDTime(payment.PrefixKey, id)
	if !ok {
		return ""
	}
	return payment.FirstID(payment.PrefixKey, made.Add(-idSlack))
}
