package webhook

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/access"
	"payments/internal/idempotency"
	"payments/internal/payment"
	"payments/internal/postgres"
	"payments/internal/secret"
)

// Store keeps endpoints and shows their deliveries. What belongs to another
// merchant is not there.
type Store struct {
	pool   *pgxpool.Pool
	ids    payment.Generator
	cipher *secret.Cipher
	guard  Guard
}

// NewStore's ids make secrets, too: their randomness has to be cryptographically strong. Without
// a cipher nothing is made, and of a URL there is what ShownURL gives.
func NewStore(pool *pgxpool.Pool, ids payment.Generator, cipher *secret.Cipher, guard Guard) *Store {
	return &Store{pool, ids, cipher, guard}
}

// Guard says which addresses an endpoint may have.
func (s *Store) Guard() Guard { return s.guard }

// Keyed is a new endpoint or secret: Secret is shown now and never again.
type Keyed struct {
	Endpoint
	Secret string
	// PreviousUntil is when the secrets before this one sign no more; zero if there were none.
	PreviousUntil time.Time
}

func errNoEndpoint() *payment.Error {
	return payment.Errorf(payment.CodeNotFound, "There is no such webhook endpoint.")
}

// Create writes the key, the endpoint, its secret and the response that render
// makes, in one transaction; or gives the stored response of the request that did
// so before. Errors: idempotency.ErrInUse and ErrReused; CodeWebhookLimit.
func (s *Store) Create(ctx context.Context, r idempotency.Request, d Draft,
	render func(Keyed) (idempotency.Response, error),
) (resp idempotency.Response, replayed bool, err error) {
	return s.keyed(ctx, r, render, func(tx pgx.Tx) (Keyed, error) {
		// One at a time a merchant: the count has to hold.
		var endpoints, kept int
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('webhook_endpoints ' || $1::text, 0))`, r.MerchantID); err != nil {
			return Keyed{}, fmt.Errorf("lock the merchant's endpoints: %w", err)
		}
		if err := tx.QueryRow(ctx, `SELECT count(*) FILTER (WHERE deleted_at IS NULL), count(*) FROM webhook_endpoints WHERE merchant_id = $1`,
			r.MerchantID).Scan(&endpoints, &kept); err != nil {
			return Keyed{}, fmt.Errorf("count endpoints: %w", err)
		}
		if endpoints >= MaxEndpoints {
			return Keyed{}, payment.Errorf(payment.CodeWebhookLimit, "A merchant has at most %d webhook endpoints.", MaxEndpoints)
		}
		if kept >= MaxKeptEndpoints {
			return Keyed{}, payment.Errorf(payment.CodeWebhookLimit,
				"A merchant makes at most %d webhook endpoints in 30 days, those that it deleted included.", MaxKeptEndpoints)
		}
		k := Keyed{Endpoint: Endpoint{MerchantID: r.MerchantID, ID: s.ids.New(payment.PrefixEndpoint), URL: d.url, Events: d.events}}
		sealed, err := s.cipher.Encrypt([]byte(k.URL), URLData(k.ID))
		if err != nil {
			return Keyed{}, fmt.Errorf("encrypt the URL of a webhook endpoint: %w", err)
		}
		if err := tx.QueryRow(ctx, `
			INSERT INTO webhook_endpoints (merchant_id, id, url, url_ciphertext, events) VALUES ($1, $2, $3, $4, $5) RETURNING created_at, updated_at`,
			k.MerchantID, k.ID, ShownURL(k.URL), sealed, k.Events).Scan(&k.CreatedAt, &k.UpdatedAt); err != nil {
			return Keyed{}, fmt.Errorf("insert endpoint: %w", err)
		}
		err = s.addSecret(ctx, tx, &k, 1)
		return k, err
	})
}

// maxSecrets of an endpoint that sign at once.
const maxSecrets = 4

// Rotate gives the endpoint a new secret; those before it sign beside it for
// overlap. Errors: those of Create, and CodeNotFound.
func (s *Store) Rotate(ctx context.Context, r idempotency.Request, endpointID string, overlap time.Duration,
	render func(Keyed) (idempotency.Response, error),
) (resp idempotency.Response, replayed bool, err error) {
	return s.keyed(ctx, r, render, func(tx pgx.Tx) (Keyed, error) {
		e, err := s.lockEndpoint(ctx, tx, r.MerchantID, endpointID)
		if err != nil {
			return Keyed{}, err
		}
		k := Keyed{Endpoint: e}
		var live, newest int
		if err := tx.QueryRow(ctx, `
			SELECT count(*) FILTER (WHERE expires_at IS NULL OR expires_at > now()), max(number)
			FROM webhook_secrets WHERE merchant_id = $1 AND endpoint_id = $2`, e.MerchantID, e.ID).Scan(&live, &newest); err != nil {
			return Keyed{}, fmt.Errorf("count secrets: %w", err)
		}
		if live >= maxSecrets && overlap > 0 {
			return Keyed{}, payment.Errorf(payment.CodeWebhookLimit,
				"At most %d secrets of an endpoint sign at once. Rotate without an overlap, or wait until one has ended.", maxSecrets)
		}
		if err := tx.QueryRow(ctx, `
			UPDATE webhook_secrets SET expires_at = now() + $3::interval
			WHERE merchant_id = $1 AND endpoint_id = $2 AND expires_at IS NULL RETURNING expires_at`,
			e.MerchantID, e.ID, overlap).Scan(&k.PreviousUntil); err != nil {
			return Keyed{}, fmt.Errorf("end the current secret: %w", err)
		}
		// What was told to end sooner still does; without an overlap all end now, and what
		// has ended is no longer kept.
		if _, err := tx.Exec(ctx, `
			DELETE FROM webhook_secrets WHERE merchant_id = $1 AND endpoint_id = $2 AND (expires_at <= now() OR $3::interval = '0')`,
			e.MerchantID, e.ID, overlap); err != nil {
			return Keyed{}, fmt.Errorf("drop ended secrets: %w", err)
		}
		err = s.addSecret(ctx, tx, &k, newest+1)
		return k, err
	})
}

func (s *Store) keyed(ctx context.Context, r idempotency.Request, render func(Keyed) (idempotency.Response, error),
	do func(tx pgx.Tx) (Keyed, error),
) (resp idempotency.Response, replayed bool, err error) {
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) (err error) {
		resp, replayed, err = idempotency.Once(ctx, tx, r, func() (Keyed, error) { return do(tx) }, render)
		return err
	})
	return resp, replayed, err
}

func (s *Store) addSecret(ctx context.Context, tx pgx.Tx, k *Keyed, number int) (err error) {
	if k.Secret, err = newSecret(s.ids.Random); err != nil {
		return err
	}
	sealed, err := s.cipher.Encrypt([]byte(k.Secret), SecretData(k.ID, number))
	if err != nil {
		return fmt.Errorf("encrypt webhook secret: %w", err)
	}
	if _, err := tx.Exec(ctx, `INSERT INTO webhook_secrets (merchant_id, endpoint_id, number, ciphertext) VALUES ($1, $2, $3, $4)`,
		k.MerchantID, k.ID, number, sealed); err != nil {
		return fmt.Errorf("insert webhook secret: %w", err)
	}
	return nil
}

const selectEndpoint = `
	SELECT merchant_id, id, url, url_ciphertext, events, coalesce(disabled_reason, ''), disabled_at, failing_since, created_at, updated_at
	FROM webhook_endpoints WHERE deleted_at IS NULL AND `

func (s *Store) scanEndpoint(row pgx.CollectableRow) (e Endpoint, err error) {
	var sealed []byte
	if err := row.Scan(&e.MerchantID, &e.ID, &e.URL, &sealed, &e.Events, &e.DisabledReason, &e.DisabledAt, &e.FailingSince, &e.CreatedAt, &e.UpdatedAt); err != nil {
		return e, err
	}
	if s.cipher != nil {
		e.URL, err = openURL(s.cipher, e.ID, e.URL, sealed)
	}
	return e, err
}

// one is CodeNotFound when the rows are none.
func (s *Store) one(rows pgx.Rows, err error) (Endpoint, error) {
	if err == nil {
		var e Endpoint
		if e, err = pgx.CollectExactlyOneRow(rows, s.scanEndpoint); err == nil {
			return e, nil
		}
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return Endpoint{}, errNoEndpoint()
	}
	return Endpoint{}, fmt.Errorf("read endpoint: %w", err)
}

func (s *Store) lockEndpoint(ctx context.Context, tx pgx.Tx, merchantID, id string) (Endpoint, error) {
	if !payment.ValidID(payment.PrefixEndpoint, id) {
		return Endpoint{}, errNoEndpoint()
	}
	return s.one(tx.Query(ctx, selectEndpoint+`merchant_id = $1 AND id = $2 FOR UPDATE`, merchantID, id))
}

// Get is CodeNotFound outside of the scope.
func (s *Store) Get(ctx context.Context, scope access.Scope, id string) (Endpoint, error) {
	if !payment.ValidID(payment.PrefixEndpoint, id) {
		return Endpoint{}, errNoEndpoint()
	}
	merchantID, all := scope.Merchant()
	return s.one(postgres.Query(ctx, s.pool, selectEndpoint+`id = $1 AND ($2 OR merchant_id = $3)`, id, all, merchantID))
}

// List pages by the last id seen, oldest endpoint first; more says that there are others behind.
func (s *Store) List(ctx context.Context, scope access.Scope, after string, limit int) (page []Endpoint, more bool, err error) {
	merchantID, all := scope.Merchant()
	rows, err := postgres.Query(ctx, s.pool, selectEndpoint+`($1 OR merchant_id = $2) AND id > $3 ORDER BY id LIMIT `+strconv.Itoa(limit+1), all, merchantID, after)
	if err != nil {
		return nil, false, fmt.Errorf("list endpoints: %w", err)
	}
	if page, err = pgx.CollectRows(rows, s.scanEndpoint); err != nil {
		return nil, false, fmt.Errorf("list endpoints: %w", err)
	}
	if len(page) > limit {
		return page[:limit], true, nil
	}
	return page, false, nil
}

// Delete ends the endpoint: nothing is delivered to it any more, its URL and secrets are
// gone, and its log can no longer be read.
func (s *Store) Delete(ctx context.Context, merchantID, id string) error {
	return postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		e, err := s.lockEndpoint(ctx, tx, merchantID, id)
		if err != nil {
			return err
		}
		var b pgx.Batch
		b.Queue(`UPDATE webhook_endpoints SET deleted_at = now(), updated_at = now(), url = $3, url_ciphertext = NULL WHERE merchant_id = $1 AND id = $2`,
			e.MerchantID, e.ID, ShownURL(e.URL))
		b.Queue(`DELETE FROM webhook_secrets WHERE merchant_id = $1 AND endpoint_id = $2`, e.MerchantID, e.ID)
		if err := tx.SendBatch(ctx, &b).Close(); err != nil {
			return fmt.Errorf("delete endpoint: %w", err)
		}
		return nil
	})
}

// Enable takes a disabled endpoint up again: deliveries that were pending go on,
// and events from now on are delivered. An enabled one stays as it is.
func (s *Store) Enable(ctx context.Context, merchantID, id string) (e Endpoint, err error) {
	err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := s.lockEndpoint(ctx, tx, merchantID, id); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `
			UPDATE webhook_endpoints SET disabled_at = NULL, disabled_reason = NULL, exhausted = 0, updated_at = now()
			WHERE merchant_id = $1 AND id = $2 AND disabled_at IS NOT NULL`, merchantID, id); err != nil {
			return fmt.Errorf("enable endpoint: %w", err)
		}
		e, err = s.lockEndpoint(ctx, tx, merchantID, id)
		return err
	})
	return e, err
}
