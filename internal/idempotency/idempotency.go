package idempotency

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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

// AnswerData is the associated data for a caller who keeps a Body encrypted. It binds the
// ciphertext to its row, by merchant and key, and to what the request made. No part has a NUL.
func AnswerData(r Request, resourceID string) []byte {
	return []byte("idempotency_answer\x00" + r.MerchantID + "\x00" + r.Key + "\x00" + resourceID)
}

// BodyData is the associated data of answers that were kept before migration 00040: they are
// bound to what the request made alone.
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

// Begun is how a request began: with a stored answer, with the key owned, or with an error,
// ErrInUse or ErrReused.
type Begun struct {
	Stored *Response
	Err    error
}

// Begin gives the stored answer, or nil when tx now owns the key until it ends
// and the caller has to do the work and Store its answer. ErrInUse: another
// transaction owns it. ErrReused: the key answered another request.
//
// tx has to be READ COMMITTED: the answer is looked for by a statement of its
// own after the lock, whose snapshot sees what the lock's last owner committed.
// Under a higher isolation the primary key would still refuse the second answer.
// Two keys of one hash only cost one of them an ErrInUse.
func Begin(ctx context.Context, tx pgx.Tx, r Request) (replay *Response, err error) {
	begun, err := BeginAll(ctx, tx, []Request{r})
	if err != nil {
		return nil, err
	}
	return begun[0].Stored, begun[0].Err
}

// BeginAll is Begin for requests of one merchant that share a transaction. Of several that
// have a key in common the first owns it. The error is not of a request.
func BeginAll(ctx context.Context, tx pgx.Tx, all []Request) ([]Begun, error) {
	keys := make([]string, len(all))
	for n, r := range all {
		keys[n] = r.Key
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	owned, stored := map[string]bool{}, map[string]keptAnswer{}
	var b pgx.Batch // one round trip
	b.Queue(`
		SELECT key FROM unnest($2::text[]) AS k (key)
		WHERE pg_try_advisory_xact_lock(hashtextextended($1::text || chr(31) || key, $3))`, all[0].MerchantID, keys, lockSeed).
		Query(func(rows pgx.Rows) error {
			var key string
			_, err := pgx.ForEachRow(rows, []any{&key}, func() error {
				owned[key] = true
				return nil
			})
			return err
		})
	// Looked for without the lock as well: replays hold it too, and need not wait for each other.
	b.Queue(`
		SELECT i.* FROM unnest($2::text[]) AS k (key), LATERAL (
			SELECT key, fingerprint, resource_id, status, header, body FROM idempotency_keys
			WHERE merchant_id = $1 AND key = k.key OFFSET 0) i`, all[0].MerchantID, keys).
		Query(func(rows pgx.Rows) error {
			kept, err := pgx.CollectRows(rows, pgx.RowToStructByPos[keptAnswer])
			for _, k := range kept {
				stored[k.Key] = k
			}
			return err
		})
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return nil, fmt.Errorf("lock and read idempotency keys: %w", err)
	}
	begun := make([]Begun, len(all))
	for n, r := range all {
		k, known := stored[r.Key]
		switch {
		case known:
			begun[n].Stored, begun[n].Err = k.answer(r)
		case !owned[r.Key]:
			begun[n].Err = ErrInUse
		}
		delete(owned, r.Key)
	}
	return begun, nil
}

// keptAnswer is a row of idempotency_keys.
type keptAnswer struct {
	Key         string
	Fingerprint []byte
	ResourceID  string
	Status      int
	Header      []byte
	Body        []byte
}

func (k keptAnswer) answer(r Request) (*Response, error) {
	if !bytes.Equal(k.Fingerprint, r.Fingerprint[:]) {
		return nil, ErrReused
	}
	resp := Response{ResourceID: k.ResourceID, Status: k.Status, Body: k.Body}
	if err := json.Unmarshal(k.Header, &resp.Header); err != nil {
		return nil, fmt.Errorf("read stored header: %w", err)
	}
	return &resp, nil
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
	var b pgx.Batch
	if err := QueueStore(&b, Answer{r, resp}); err != nil {
		return err
	}
	err := tx.SendBatch(ctx, &b).Close()
	if postgres.Constraint(err) == "idempotency_keys_pkey" {
		return ErrInUse
	}
	if err != nil {
		return fmt.Errorf("store idempotency key: %w", err)
	}
	return nil
}

// Answer is the response to a request that owns its key.
type Answer struct {
	Request
	Response
}

type storedAnswer struct {
	MerchantID  string `sql:"merchant_id text"`
	Key         string `sql:"key text"`
	Fingerprint []byte `sql:"fingerprint bytea"`
	ResourceID  string `sql:"resource_id text"`
	Status      int16  `sql:"status smallint"`
	Header      string `sql:"header text"`
	Body        []byte `sql:"body bytea"`
}

// QueueStore is Store in a batch of statements. Another's answer under one of the keys
// violates idempotency_keys_pkey.
func QueueStore(b *pgx.Batch, all ...Answer) error {
	rows := make([]storedAnswer, len(all))
	for n, a := range all {
		header := []byte("{}")
		if a.Header != nil {
			var err error
			if header, err = json.Marshal(a.Header); err != nil {
				return fmt.Errorf("write header: %w", err)
			}
		}
		rows[n] = storedAnswer{
			MerchantID: a.MerchantID, Key: a.Key, Fingerprint: a.Fingerprint[:], ResourceID: a.ResourceID,
			Status: int16(a.Status), Header: string(header), Body: a.Body, //nolint:gosec // 2xx
		}
		if a.Body == nil {
			rows[n].Body = []byte{}
		}
	}
	b.Queue(`
		INSERT INTO idempotency_keys (merchant_id, key, fingerprint, resource_id, status, header, body)
		SELECT merchant_id, key, fingerprint, resource_id, status, header::jsonb, body FROM `+postgres.Unnest[storedAnswer](1)+` v`,
		postgres.Columns(rows)...)
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
