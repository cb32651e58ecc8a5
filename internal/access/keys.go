package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// Keys makes, rotates, approves, pins and revokes API keys. Each act is recorded in its own
// transaction (record.go). A revoked key is refused at once by every process, since each
// request reads it.
type Keys struct {
	pool   *pgxpool.Pool
	pepper *secret.Pepper
	ids    payment.Generator
	log    *slog.Logger
}

// NewKeys writes a log line for every act. The pepper may be nil if no key is made or approved.
func NewKeys(pool *pgxpool.Pool, pepper *secret.Pepper, ids payment.Generator, log *slog.Logger) *Keys {
	return &Keys{pool, pepper, ids, log}
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
	ApprovedAt     *time.Time // nil: it does not work yet
	ExpiresAt      *time.Time
	LastUsedAt     *time.Time // to the minute
	RevokedAt      *time.Time
	Replaces       *string // whose place it takes, once it is approved
	ReplacedBy     *string
	APIVersion     string
}

// Render makes the answer to store, which must not hold the secret.
type Render func(APIKey) (idempotency.Response, error)

// Made is an API key with its secret, which exists nowhere else, or with the first part of
// it, if a second person has to approve the key. Of a repeated request it is the stored answer
// alone: there is no secret any more.
type Made struct {
	Secret   string
	Part     string
	Key      APIKey
	Response idempotency.Response
	Replayed bool
}

// Create proposes a key, once for the request. The key works once another person has approved
// it. Errors: those of idempotency.Begin; CodeNotFound of a merchant that does not exist;
// CodeInvalid.
func (k *Keys) Create(ctx context.Context, by By, r idempotency.Request, spec KeySpec, render Render) (Made, error) {
	return k.once(ctx, r, render, func(tx pgx.Tx) (Made, error) {
		m, err := k.insert(ctx, tx, spec, nil)
		if err != nil {
			return Made{}, err
		}
		return m, k.record(ctx, tx, by, act{key: m.Key, action: ActMake})
	})
}

// Bootstrap makes an operator's key that works at once, as long as fewer than two persons have
// ever held one: there is nobody yet who could approve it. Errors: those of Create;
// CodeSecondOperator.
func (k *Keys) Bootstrap(ctx context.Context, by By, r idempotency.Request, spec KeySpec, render Render) (Made, error) {
	return k.once(ctx, r, render, func(tx pgx.Tx) (m Made, err error) {
		if spec.Role != RoleOperator {
			return Made{}, payment.Errorf(payment.CodeSecondOperator, "A key of this role takes two operators: one makes it, another approves it.")
		}
		text, key, err := NewKey(k.ids, k.pepper, spec)
		if err != nil {
			return Made{}, cannotBeMade(err)
		}
		if m.Key, err = k.first(ctx, tx, by, key); err != nil {
			return Made{}, err
		}
		m.Secret = text
		return m, nil
	})
}

// Rotate makes a key like the one it replaces, of the same holder. The key before goes on to
// work for overlap and then expires. The holder's own rotation works at once; another's is a
// proposal, as Create's is, and replaces the key when it is approved. Errors: those of Create;
// CodeAPIKeyInactive.
func (k *Keys) Rotate(ctx context.Context, by By, r idempotency.Request, id string, mode Mode, overlap time.Duration, render Render) (Made, error) {
	return k.once(ctx, r, render, func(tx pgx.Tx) (Made, error) { return k.rotate(ctx, tx, by, id, mode, overlap) })
}

func (k *Keys) once(ctx context.Context, r idempotency.Request, render Render, do func(pgx.Tx) (Made, error)) (m Made, err error) {
	err = postgres.InTx(ctx, k.pool, func(tx pgx.Tx) (err error) {
		var made Made
		response, replayed, err := idempotency.Once(ctx, tx, r, func() (_ APIKey, err error) {
			made, err = do(tx)
			return made.Key, err
		}, render)
		m = made
		m.Response, m.Replayed = response, replayed
		return err
	})
	if err != nil {
		return Made{}, err
	}
	return m, nil
}

// rotation is a key that is replaced, and for how long both work.
type rotation struct {
	id      string
	overlap time.Duration
	byOwner bool
}

// insert makes a key that waits for a second person, unless its holder replaces another of his.
func (k *Keys) insert(ctx context.Context, tx pgx.Tx, spec KeySpec, r *rotation) (m Made, err error) {
	if len(spec.Networks) > MaxNetworks {
		return Made{}, payment.Errorf(payment.CodeInvalid, "An API key has at most %d networks.", MaxNetworks)
	}
	var key Key
	if r != nil && r.byOwner {
		m.Secret, key, err = NewKey(k.ids, k.pepper, spec)
	} else {
		m.Part, key, err = newSplitKey(k.ids, k.pepper, spec)
	}
	if err != nil {
		return Made{}, cannotBeMade(err)
	}
	if r != nil {
		key.Replaces, key.Overlap = r.id, r.overlap
	}
	if err := InsertKey(ctx, tx, key); err != nil {
		return Made{}, err
	}
	m.Key, err = readKey(ctx, tx, key.ID)
	return m, err
}

func cannotBeMade(err error) error {
	return payment.Errorf(payment.CodeInvalid, "An API key of this mode, role, merchant and holder cannot be made: %v.", err)
}

func (k *Keys) rotate(ctx context.Context, tx pgx.Tx, by By, id string, mode Mode, overlap time.Duration) (Made, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return Made{}, payment.Errorf(payment.CodeInvalid, "The overlap has to be from 0 to %s.", MaxOverlap)
	}
	old, err := readKey(ctx, tx, id)
	if err != nil {
		return Made{}, err
	}
	r := rotation{id, overlap, by.owns(old)} // a key never changes its holder
	if !r.byOwner && !by.Others {
		return Made{}, errNoKey() // as if there were none
	}
	if old, err = lockActive(ctx, tx, id); err != nil {
		return Made{}, err
	}
	m, err := k.insert(ctx, tx, KeySpec{
		Mode: mode, Role: old.Role, MerchantID: old.MerchantID, Holder: old.Holder, Networks: old.Networks, ExpiresAt: old.ExpiresAt, APIVersion: old.APIVersion,
	}, &r)
	if err != nil {
		return Made{}, err
	}
	if r.byOwner {
		if err := retire(ctx, tx, id, m.Key.ID, overlap); err != nil {
			return Made{}, err
		}
	}
	return m, k.record(ctx, tx, by, act{key: m.Key, action: ActRotate, detail: id})
}

// lockActive refuses a key that does not work any more, or not yet, and so cannot be replaced.
func lockActive(ctx context.Context, tx pgx.Tx, id string) (APIKey, error) {
	var active bool
	err := tx.QueryRow(ctx, `
		SELECT approved_at IS NOT NULL AND revoked_at IS NULL AND replaced_by IS NULL AND (expires_at IS NULL OR expires_at > now())
		FROM api_keys WHERE id = $1 FOR NO KEY UPDATE`, id).Scan(&active)
	if errors.Is(err, pgx.ErrNoRows) {
		return APIKey{}, errNoKey()
	}
	if err != nil {
		return APIKey{}, fmt.Errorf("lock api key: %w", err)
	}
	if !active {
		return APIKey{}, payment.Errorf(payment.CodeAPIKeyInactive, "This API key is revoked, expired, already rotated, or not approved yet.")
	}
	return readKey(ctx, tx, id)
}

func retire(ctx context.Context, tx pgx.Tx, id, replacedBy string, overlap time.Duration) error {
	if _, err := tx.Exec(ctx, `
		UPDATE api_keys SET replaced_by = $2, expires_at = least(expires_at, now() + $3::interval) WHERE id = $1`, id, replacedBy, overlap); err != nil {
		return fmt.Errorf("retire api key: %w", err)
	}
	return nil
}

// Pin changes which version of the API, of those that the caller knows, the key's requests are answered in. Error: CodeNotFound.
func (k *Keys) Pin(ctx context.Context, by By, id, apiVersion string) (APIKey, error) {
	return k.change(ctx, by, id, act{action: ActPin, detail: apiVersion},
		`UPDATE api_keys SET api_version = $2 WHERE id = $1 AND api_version <> $2`, apiVersion)
}

// Revoke may be repeated: the first time stays. A key that waits for its approval gets none
// any more. Error: CodeNotFound.
func (k *Keys) Revoke(ctx context.Context, by By, id string) (APIKey, error) {
	return k.change(ctx, by, id, act{action: ActRevoke},
		`UPDATE api_keys SET revoked_at = now(), seed = NULL WHERE id = $1 AND revoked_at IS NULL`)
}

// change records the act if the update changed something.
func (k *Keys) change(ctx context.Context, by By, id string, done act, update string, more ...any) (changed APIKey, err error) {
	err = postgres.InTx(ctx, k.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, update, append([]any{id}, more...)...)
		if err != nil {
			return fmt.Errorf("%s api key: %w", done.action, err)
		}
		if done.key, err = readKey(ctx, tx, id); err != nil {
			return err
		}
		changed = done.key
		if tag.RowsAffected() == 0 {
			return nil
		}
		return k.record(ctx, tx, by, done)
	})
	return changed, err
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
	SELECT id, coalesce(merchant_id, ''), role, coalesce(holder, ''), networks::text[], created_at, approved_at, expires_at, last_used_at, revoked_at,
		replaces, replaced_by, to_char(api_version, 'YYYY-MM-DD')
	FROM api_keys `

func scanKey(row pgx.CollectableRow) (k APIKey, err error) {
	var networks []string
	if err := row.Scan(&k.ID, &k.MerchantID, &k.Role, &k.Holder, &networks, &k.CreatedAt, &k.ApprovedAt, &k.ExpiresAt, &k.LastUsedAt, &k.RevokedAt,
		&k.Replaces, &k.ReplacedBy, &k.APIVersion); err != nil {
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
