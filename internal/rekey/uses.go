package rekey

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/secret"
)

// Uses adds up how often each key of the encryption keyset has encrypted, over all processes
// and commands. A process that is killed loses the count since its last RunOnce.
type Uses struct {
	pool   *pgxpool.Pool
	cipher *secret.Cipher
	uses   *prometheus.GaugeVec
}

// NewUses has no value before the first RunOnce.
func NewUses(pool *pgxpool.Pool, cipher *secret.Cipher, reg prometheus.Registerer) (*Uses, error) {
	u := &Uses{pool, cipher, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "payments_encryption_key_uses", Help: "How often the key of the encryption keyset has encrypted, in all processes. One key is for at most 2^32.",
	}, []string{"key"})}
	if err := reg.Register(u.uses); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return u, nil
}

// RunOnce writes what this process has counted, and reads what all have.
func (u *Uses) RunOnce(ctx context.Context) (more bool, err error) {
	if err := AddUses(ctx, u.pool, u.cipher); err != nil {
		return false, err
	}
	rows, err := u.pool.Query(ctx, `SELECT key, encryptions FROM encryption_uses`)
	if err != nil {
		return false, fmt.Errorf("read the uses of encryption keys: %w", err)
	}
	var key string
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&key, &n}, func() error {
		u.uses.WithLabelValues(key).Set(float64(n))
		return nil
	}); err != nil {
		return false, fmt.Errorf("read the uses of encryption keys: %w", err)
	}
	return false, nil
}

// AddUses writes what the cipher has counted since the last call.
func AddUses(ctx context.Context, pool *pgxpool.Pool, cipher *secret.Cipher) error {
	key, n := cipher.Uses()
	if _, err := pool.Exec(ctx, `
		INSERT INTO encryption_uses AS u (key, encryptions) VALUES ($1, $2)
		ON CONFLICT (key) DO UPDATE SET encryptions = u.encryptions + excluded.encryptions`, key, n); err != nil {
		cipher.Unused(n)
		return fmt.Errorf("count the uses of an encryption key: %w", err)
	}
	return nil
}
