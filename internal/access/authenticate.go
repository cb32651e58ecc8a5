package access

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/payment"
	"payments/internal/secret"
)

// Principal is a caller whose key was verified. MerchantID is empty for an operator; Holder
// may be empty for a merchant.
type Principal struct {
	KeyID      string
	MerchantID string
	Role       Role
	Holder     string
	APIVersion string // that its key is pinned to
}

// Authenticator reads the keys from the database each time: a revoked key is
// refused by every process at once.
type Authenticator struct {
	pool     *pgxpool.Pool
	pepper   *secret.Pepper
	verify   func(mac, data []byte) bool
	dummy    Credential // stands in for one that cannot be parsed
	dummyMAC []byte     // stands in for one that is not stored; of no credential
	memory   *memory

	mu   sync.Mutex
	used map[string]use // since the last RunOnce, by key
}

func NewAuthenticator(pool *pgxpool.Pool, pepper *secret.Pepper) *Authenticator {
	// An id without the version bits of a UUIDv7: the generator never makes it.
	id := payment.PrefixKey + "_00000000000000000000000000"
	text := FormatKey(ModeTest, id, [secretBytes]byte{})
	return &Authenticator{
		pool: pool, pepper: pepper, verify: pepper.Verify, used: map[string]use{}, memory: newMemory(),
		dummy:    Credential{ModeTest, id, text[:len(text)-checkLength]},
		dummyMAC: pepper.MAC([]byte("of no API key")),
	}
}

// Authenticate takes the token of the Authorization header and the address that it came
// from. A key that is malformed, unknown, not approved, revoked, expired, from elsewhere or
// wrong costs the same, one lookup and one MAC, and gives the same CodeUnauthenticated, so that
// neither the answer nor its time tells which it was. An error of the database stays one
// (postgres.Unavailable).
func (a *Authenticator) Authenticate(ctx context.Context, bearer string, from netip.Addr) (Principal, error) {
	return a.authenticate(ctx, a.present(bearer), from, nil)
}

// presented is a credential as a caller presents it, or the dummy for a text that is none.
type presented struct {
	Credential
	given string // the id of the key, empty for a text that is none
}

func (p presented) valid() bool { return p.given != "" }

func (a *Authenticator) present(bearer string) presented {
	c, err := ParseKey(bearer)
	if err != nil {
		return presented{Credential: a.dummy}
	}
	return presented{c, c.KeyID}
}

// authenticate spares the second MAC where known is the stored one and was verified already.
func (a *Authenticator) authenticate(ctx context.Context, c presented, from netip.Addr, known []byte) (Principal, error) {
	p := Principal{KeyID: c.KeyID}
	var (
		mac  []byte
		live bool
	)
	// By what only the whole key gives, not by its public id: a lookup finds nothing unless the
	// secret is right, so that its time does not tell whether a key of the id exists.
	err := a.pool.QueryRow(ctx, `
		SELECT coalesce(merchant_id, ''), role, coalesce(holder, ''), to_char(api_version, 'YYYY-MM-DD'), mac,
			approved_at IS NOT NULL AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
				AND (networks = '{}' OR coalesce(nullif($2, '')::inet <<= ANY (networks::inet[]), false))
		FROM api_keys WHERE mac = ANY ($1) AND id = $3`, a.pepper.MACs([]byte(c.maced)), address(from), c.KeyID).
		Scan(&p.MerchantID, &p.Role, &p.Holder, &p.APIVersion, &mac, &live)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return Principal{}, fmt.Errorf("look up api key: %w", err)
	}
	if mac == nil {
		mac = a.dummyMAC
	}
	verified := known != nil && secret.Equal(mac, known) || a.verify(mac, []byte(c.maced)) // before any other verdict
	if !verified || !live || !c.valid() {
		return Principal{}, payment.Errorf(payment.CodeUnauthenticated, "The API key is missing or not valid.")
	}
	a.memory.macs.Add(c.KeyID, mac)
	a.note(c.Credential, mac)
	return p, nil
}

// address is as a network is compared: without a zone, and IPv4 as itself.
func address(from netip.Addr) string {
	if !from.IsValid() {
		return ""
	}
	return from.Unmap().WithZone("").String()
}
