package access

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/idempotency"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/secret"
)

// Limits of keys. The database repeats the first.
const (
	MaxNetworks = 32
	MaxOverlap  = 30 * 24 * time.Hour
)

// Keys makes, rotates and revokes API keys. A revoked key is refused at once by
// every process, since each request reads it.
type Keys struct {
	pool   *pgxpool.Pool
	pepper *secret.Pepper
	ids    payment.Generator
}

func NewKeys(pool *pgxpool.Pool, pepper *secret.Pepper, ids payment.Generator) *Keys {
	return &Keys{pool, pepper, ids}
}

// KeySpec is what an API key is to be.
type KeySpec struct {
	Mode       Mode
	Role       Role
	MerchantID string
	Holder     string // the person or system that it is given to; of a merchant's key optional
	Networks   []netip.Prefix
	ExpiresAt  *time.Time
	APIVersion string // of the API's versions, which the caller knows
}

// APIKey is what may be shown of one that exists.
type APIKey struct {
	ID, MerchantID string // no merchant where the role reads all
	Role           Role
	Holder         string
	Networks       []netip.Prefix
	CreatedAt      time.Time
	ExpiresAt      *time.Time
	LastUsedAt     *time.Time // to the minute
	RevokedAt      *time.Time
	ReplacedBy     *string
	APIVersion     string
}

// Render makes the answer to store, which must not hold the secret.
type Render func(APIKey) (idempotency.Response, error)

// Made is an API key with its secret, which exists nowhere else; or the stored
// answer of the request that made it, and then there is no secret any more.
type Made struct {
	Secret   string
	Key      APIKey
	Response idempotency.Response
	Replayed bool
}

// Create makes a key once for the request. Errors: those of idempotency.Begin;
// CodeNotFound of a merchant that does not exist; CodeInvalid.
func (k *Keys) Create(ctx context.Context, r idempotency.Request, spec KeySpec, render Render) (Made, error) {
	return k.once(ctx, r, render, func(tx pgx.Tx) (string, APIKey, error) { return k.insert(ctx, tx, spec) })
}

// Rotate makes a key like the one it replaces, of the same holder, which goes on to work
// for overlap and then expires. Errors: those of Create; CodeAPIKeyInactive.
func (k *Keys) Rotate(ctx context.Context, r idempotency.Request, id string, mode Mode, overlap time.Duration, render Render) (Made, error) {
	return k.once(ctx, r, render, func(tx pgx.Tx) (string, APIKey, error) { return k.rotate(ctx, tx, id, mode, overlap) })
}

func (k *Keys) once(ctx context.Context, r idempotency.Request, render Render, do func(pgx.Tx) (string, APIKey, error)) (m Made, err error) {
	err = postgres.InTx(ctx, k.pool, func(tx pgx.Tx) (err error) {
		m.Response, m.Replayed, err = idempotency.Once(ctx, tx, r, func() (_ APIKey, err error) {
			m.Secret, m.Key, err = do(tx)
			return m.Key, err
		}, render)
		return err
	})
	if err != nil {
		return Made{}, err
	}
	return m, nil
}

func (k *Keys) insert(ctx context.Context, tx pgx.Tx, spec KeySpec) (string, APIKey, error) {
	if len(spec.Networks) > MaxNetworks {
		return "", APIKey{}, payment.Errorf(payment.CodeInvalid, "An API key has at most %d networks.", MaxNetworks)
	}
	text, key, err := NewKey(k.ids, k.pepper, spec)
	if err != nil {
		return "", APIKey{}, payment.Errorf(payment.CodeInvalid, "An API key of this mode, role, merchant and holder cannot be made: %v.", err)
	}
	if err := InsertKey(ctx, tx, key); err != nil {
		return "", APIKey{}, err
	}
	made, err := readKey(ctx, tx, key.ID)
	return text, made, err
}

func (k *Keys) rotate(ctx context.Context, tx pgx.Tx, id string, mode Mode, overlap time.Duration) (string, APIKey, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return "", APIKey{}, payment.Errorf(payment.CodeInvalid, "The overlap has to be from 0 to %s.", MaxOverlap)
	}
	var active bool
	err := tx.QueryRow(ctx, `
		SELECT revoked_at IS NULL AND replaced_by IS NULL AND (expires_at IS NULL OR expires_at > now())
		FROM api_keys WHERE id = $1 FOR NO KEY UPDATE`, id).Scan(&active)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", APIKey{}, errNoKey()
	}
	if err != nil {
		return "", APIKey{}, fmt.Errorf("lock api key: %w", err)
	}
	if !active {
		return "", APIKey{}, payment.Errorf(payment.CodeAPIKeyInactive, "This API key is revoked, expired or already rotated.")
	}
	old, err := readKey(ctx, tx, id)
	if err != nil {
		return "", APIKey{}, err
	}
	text, made, err := k.insert(ctx, tx, KeySpec{
		Mode: mode, Role: old.Role, MerchantID: old.MerchantID, Holder: old.Holder, Networks: old.Networks, ExpiresAt: old.ExpiresAt, APIVersion: old.APIVersion,
	})
	if err != nil {
		return "", APIKey{}, err
	}
	_, err = tx.Exec(ctx, `
		UPDATE api_keys SET replaced_by = $2, expires_at = least(expires_at, now() + $3::interval) WHERE id = $1`, id, made.ID, overlap)
	if err != nil {
		return "", APIKey{}, fmt.Errorf("retire api key: %w", err)
	}
	return text, made, nil
}

// Pin changes which version of the API, of those that the caller knows, the key's requests are answered in. Error: CodeNotFound.
func (k *Keys) Pin(ctx context.Context, id, apiVersion string) (pinned APIKey, err error) {
	err = postgres.InTx(ctx, k.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE api_keys SET api_version = $2 WHERE id = $1`, id, apiVersion); err != nil {
			return fmt.Errorf("pin api key: %w", err)
		}
		pinned, err = readKey(ctx, tx, id)
		return err
	})
	return pinned, err
}

// Revoke may be repeated: the first time stays.
func (k *Keys) Revoke(ctx context.Context, id string) (revoked APIKey, err error) {
	err = postgres.InTx(ctx, k.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1`, id); err != nil {
			return fmt.Errorf("revoke api key: %w", err)
		}
		revoked, err = readKey(ctx, tx, id)
		return err
	})
	return revoked, err
}

// List gives the newest first: those of one merchant, or all when it is empty,
// older than the id after if that is not empty.
func (k *Keys) List(ctx context.Context, merchantID, after string, limit int) ([]APIKey, error) {
	rows, err := k.pool.Query(ctx, selectKey+`
		WHERE ($1 = '' OR merchant_id = $1) AND ($2 = '' OR id < $2) ORDER BY id DESC LIMIT $3`, merchantID, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list api keys: %w", err)
	}
	return pgx.CollectRows(rows, scanKey)
}

func errExpired() *payment.Error {
	return &payment.Error{Code: payment.CodeInvalid, Message: "The API key is not valid.", Fields: []payment.FieldError{
		{Pointer: "/expires_at", Code: "time_invalid", Message: "must be an RFC 3339 time that is still to come"},
	}}
}

func errNoKey() *payment.Error {
	return payment.Errorf(payment.CodeNotFound, "There is no such API key.")
}

const selectKey = `
	SELECT id, coalesce(merchant_id, ''), role, coalesce(holder, ''), networks::text[], created_at, expires_at, last_used_at, revoked_at, replaced_by,
		to_char(api_version, 'YYYY-MM-DD')
	FROM api_keys `

func scanKey(row pgx.CollectableRow) (k APIKey, err error) {
	var networks []string
	if err := row.Scan(&k.ID, &k.MerchantID, &k.Role, &k.Holder, &networks, &k.CreatedAt, &k.ExpiresAt, &k.LastUsedAt, &k.RevokedAt, &k.ReplacedBy, &k.APIVersion); err != nil {
		return k, err
	}
	for _, n := range networks {
		p, err := netip.ParsePrefix(n)
		if err != nil {
			return k, fmt.Errorf("network of %s: %w", k.ID, err)
		}
		k.Networks = append(k.Networks, p)
	}
	return k, nil
}

func readKey(ctx context.Context, tx pgx.Tx, id string) (APIKey, error) {
	rows, err := tx.Query(ctx, selectKey+`WHERE id = $1`, id)
	if err != nil {
		return APIKey{}, fmt.Errorf("read api key: %w", err)
	}
	k, err := pgx.CollectExactlyOneRow(rows, scanKey)
	if errors.Is(err, pgx.ErrNoRows) {
		return APIKey{}, errNoKey()
	}
	if err != nil {
		return APIKey{}, fmt.Errorf("read api key: %w", err)
	}
	return k, nil
}

// ParseNetwork takes a network in CIDR form, or one address, and refuses bits
// behind its length, as the database does.
func ParseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Masked() != p || p.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("must be a network like 203.0.113.0/24 without bits behind its length")
	}
	return p, nil
}

func texts(networks []netip.Prefix) []string {
	all := make([]string, len(networks))
	for i, n := range networks {
		all[i] = n.String()
	}
	return all
}
