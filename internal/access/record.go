package access

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/payment"
)

// By is who acts on a key, and from where.
type By struct {
	// KeyID and Holder are of the key that is acted with. Both are empty of a command before
	// two persons have operator keys.
	KeyID, Holder string
	Source        Source
	Origin        string // the client's address; of a command the system's user and host
	// Others: the policies let it act on the keys of others.
	Others bool
}

// owns reports whether the key is one of the acting person's. A merchant's names are its own:
// they say nothing of the persons who run the service.
func (b By) owns(k APIKey) bool {
	return b.KeyID != "" && k.MerchantID == "" && payment.SamePerson(b.Holder, k.Holder)
}

// Source is the way of an act into the service.
type Source string

const (
	SourceAPI         Source = "api"
	SourceCommandLine Source = "command_line"
	SourceSeed        Source = "seed"
)

// KeyAction is what was done with a key.
type KeyAction string

const (
	ActMake    KeyAction = "make"
	ActRotate  KeyAction = "rotate"
	ActApprove KeyAction = "approve"
	ActPin     KeyAction = "pin"
	ActRevoke  KeyAction = "revoke"
)

// KeyAct is one line of the record. The key's holder and merchant are whose key it is.
type KeyAct struct {
	ID               string
	KeyID            string
	KeyHolder        string
	MerchantID       string
	Action           KeyAction
	Operator, Holder *string // with which key, and who held it; nil before there were two operators
	Source           Source
	Origin           string
	Detail           *string // of a rotation the key before, of a pin the version
	CreatedAt        time.Time
}

type act struct {
	key    APIKey
	action KeyAction
	detail string
}

// record keeps the act, which nobody can change afterwards. The log line is written before the
// commit: one too many is better than one too few.
func (k *Keys) record(ctx context.Context, tx pgx.Tx, by By, a act) error {
	id := k.ids.New(payment.PrefixKeyAct)
	if _, err := tx.Exec(ctx, `
		INSERT INTO key_acts (id, key_id, action, operator, holder, source, origin, detail)
		VALUES ($1, $2, $3, nullif($4, ''), nullif($5, ''), $6, $7, nullif($8, ''))`,
		id, a.key.ID, a.action, by.KeyID, by.Holder, by.Source, by.Origin, a.detail); err != nil {
		return fmt.Errorf("record the act on an api key: %w", err)
	}
	k.log.InfoContext(ctx, "act on an API key", "action", a.action, "key", a.key.ID, "role", a.key.Role, "key_holder", a.key.Holder, "merchant", a.key.MerchantID,
		"operator", by.KeyID, "holder", by.Holder, "source", by.Source, "origin", by.Origin, "detail", a.detail, "act", id)
	return nil
}

// Acts gives the newest first: those on one key, or all when keyID is empty, older than the
// id after if that is not empty.
func (k *Keys) Acts(ctx context.Context, keyID, after string, limit int) ([]KeyAct, error) {
	rows, err := k.pool.Query(ctx, `
		SELECT a.id, a.key_id, coalesce(k.holder, ''), coalesce(k.merchant_id, ''), a.action, a.operator, a.holder, a.source, a.origin, a.detail, a.created_at
		FROM key_acts a JOIN api_keys k ON k.id = a.key_id
		WHERE ($1 = '' OR a.key_id = $1 OR a.detail = $1) AND ($2 = '' OR a.id < $2) ORDER BY a.id DESC LIMIT $3`, keyID, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list acts on api keys: %w", err)
	}
	acts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[KeyAct])
	if err != nil {
		return nil, fmt.Errorf("list acts on api keys: %w", err)
	}
	return acts, nil
}

// ActGauge counts the record, whichever process or command wrote it.
type ActGauge struct {
	pool *pgxpool.Pool
	acts *prometheus.GaugeVec
}

// NewActGauge has no value before the first RunOnce.
func NewActGauge(pool *pgxpool.Pool, reg prometheus.Registerer) (*ActGauge, error) {
	g := &ActGauge{pool, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "payments_key_acts", Help: "Acts on API keys in the record, by what was done, the way, and whether an operator's key did it.",
	}, []string{"action", "source", "operator"})}
	if err := reg.Register(g.acts); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return g, nil
}

// RunOnce counts.
func (g *ActGauge) RunOnce(ctx context.Context) (more bool, err error) {
	rows, err := g.pool.Query(ctx, `
		SELECT action, source, CASE WHEN operator IS NULL THEN 'none' ELSE 'key' END, count(*) FROM key_acts GROUP BY 1, 2, 3`)
	if err != nil {
		return false, fmt.Errorf("count acts on api keys: %w", err)
	}
	var action, source, operator string
	var n float64
	if _, err := pgx.ForEachRow(rows, []any{&action, &source, &operator, &n}, func() error {
		g.acts.WithLabelValues(action, source, operator).Set(n)
		return nil
	}); err != nil {
		return false, fmt.Errorf("count acts on api keys: %w", err)
	}
	return false, nil
}
