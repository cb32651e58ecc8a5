package idempotency

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/postgres"
)

// Retention is how long an answer is kept at least.
const Retention = 31 * 24 * time.Hour

var (
	ErrInUse  = errors.New("the first request with this idempotency key is still being committed")
	ErrReused = errors.New("this idempotency key was used for another request")
)

// Request is one attempt of a client. The key is the merchant's own: two
// merchants may use the same one.
type Request struct {
	MerchantID  string
	Key         string
	Fingerprint [32]byte
}

// BodyData is the associated data for a caller who keeps a Body encrypted: it binds the
// ciphertext to what the request made.
func BodyData(resourceID string) []byte { return []byte("idempotency_response|" + resourceID) }

// Response is the first answer. Status is 2xx: a refused request is not kept.
type Response struct {
	ResourceID string
	Status     int
	Header     map[string]string
	Body       []byte
}

// lockSeed keeps the locks of this package apart from other advisory locks.
const lockSeed = 0x6964656d

// Begin gives the stored answer, or nil when tx now owns the key until it ends
// and the caller has to do the work and Store its answer. ErrInUse: another
// transaction owns it. ErrReused: the key answered another request.
//
// tx has to be READ COMMITTED: the answer is looked for by a statement of its
// own after the lock, whose snapshot sees what the lock's last owner committed.
// Under a higher isolation the primary key would still refuse the second answer.
// Two keys of one hash only cost one of them an ErrInUse.
func Begin(ctx context.Context, tx pgx.Tx, r Request) (replay *Response, err error) {
	var owned bool
	err = tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(hashtextextended($1::text || chr(31) || $2::text, $3))`,
		r.MerchantID, r.Key, lockSeed).Scan(&owned)
	if err != nil {
		return nil, fmt.Errorf("lock idempotency key: %w", err)
	}
	// Looked for without the lock as well: replays hold it too, and need not wait for each other.
	var (
		stored      Response
		fingerprint []byte
		header      []byte
	)
	err = tx.QueryRow(ctx, `
		SELECT fingerprint, resource_id, status, header, body
		FROM idempotency_keys
		WHERE merchant_id = $1 AND key = $2`, r.MerchantID, r.Key).
		Scan(&fingerprint, &stored.ResourceID, &stored.Status, &header, &stored.Body)
	switch {
	case errors.Is(err, pgx.ErrNoRows) && owned:
		return nil, nil
	case errors.Is(err, pgx.ErrNoRows):
		return nil, ErrInUse
	case err != nil:
		return nil, fmt.Errorf("read idempotency key: %w", err)
	case !bytes.Equal(fingerprint, r.Fingerprint[:]):
		return nil, ErrReused
	}
	if err := json.Unmarshal(header, &stored.Header); err != nil {
		return nil, fmt.Errorf("read stored header: %w", err)
	}
	return &stored, nil
}

// Once does what the request asks for and keeps the answer that render makes of it,
// or gives the kept one: then nothing is done, and replayed is true. All of it is
// tx's, which has to be READ COMMITTED. Errors: those of Begin, do and render.
func Once[T any](ctx context.Context, tx pgx.Tx, r Request, do func() (T, error), render func(T) (Response, error)) (resp Response, replayed bool, err error) {
	stored, err := Begin(ctx, tx, r)
	if err != nil {
		return Response{}, false, err
	}
	if stored != nil {
		return *stored, true, nil
	}
	done, err := do()
	if err != nil {
		return Response{}, false, err
	}
	if resp, err = render(done); err != nil {
		return Response{}, false, fmt.Errorf("render response: %w", err)
	}
	return resp, false, Store(ctx, tx, r, resp)
}

// Store keeps the answer for Begin, in the transaction of what it answers.
func Store(ctx context.Context, tx pgx.Tx, r Request, resp Response) error {
	header := []byte("{}")
	if resp.Header != nil {
		var err error
		if header, err = json.Marshal(resp.Header); err != nil {
			return fmt.Errorf("write header: %w", err)
		}
	}
	body := resp.Body
	if body == nil {
		body = []byte{}
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO idempotency_keys (merchant_id, key, fingerprint, resource_id, status, header, body)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		r.MerchantID, r.Key, r.Fingerprint[:], resp.ResourceID, resp.Status, header, body)
	if postgres.Constraint(err) == "idempotency_keys_pkey" {
		return ErrInUse
	}
	if err != nil {
		return fmt.Errorf("store idempotency key: %w", err)
	}
	return nil
}

// Reap deletes one batch of at most limit answers older than olderThan by the
// database's clock, oldest first; a full batch means that there may be more.
func Reap(ctx context.Context, pool *pgxpool.Pool, olderThan time.Duration, limit int) (deleted int, err error) {
	// By the index idempotency_keys_age.
	tag, err := pool.Exec(ctx, `
		DELETE FROM idempotency_keys
		WHERE (merchant_id, key) IN (
			SELECT merchant_id, key FROM idempotency_keys
			WHERE created_at < now() - $1::interval
			ORDER BY created_at
			LIMIT $2
		)`, olderThan, limit)
	if err != nil {
		return 0, fmt.Errorf("reap idempotency keys: %w", err)
	}
	return int(tag.RowsAffected()), nil
}
