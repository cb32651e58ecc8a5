package textbook

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

//go:embed schema.sql
var schema string

// Config of the service.
type Config struct {
	DatabaseURL string
	Brokers     string
	Topic       string
	Simulator   string // the provider's URL
	Addr        string
	Workers     int // sagas at once
}

// Migrate makes the tables, and a merchant with stock of the article.
func Migrate(ctx context.Context, url, merchant, key, sku string, onHand int64) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, schema); err != nil {
		return fmt.Errorf("make the tables: %w", err)
	}
	hash := sha256.Sum256([]byte(key))
	if _, err := conn.Exec(ctx, `INSERT INTO merchants (id, api_key_sha256) VALUES ($1, $2)`, merchant, hash[:]); err != nil {
		return fmt.Errorf("make the merchant: %w", err)
	}
	_, err = conn.Exec(ctx, `INSERT INTO stock (merchant_id, sku, on_hand) VALUES ($1, $2, $3)`, merchant, sku, onHand)
	return err
}

type service struct {
	Config
	pool *pgxpool.Pool
	http *http.Client
}

// Command is the name of this program's subcommand that serves.
const Command = "textbook"

// RunCommand takes the database's URL, the brokers, the topic, the simulator's URL, the address and the
// number of workers.
func RunCommand(ctx context.Context, args []string) error {
	if len(args) != 6 {
		return errors.New("textbook: want DATABASE BROKERS TOPIC SIMULATOR ADDRESS WORKERS")
	}
	workers, err := strconv.Atoi(args[5])
	if err != nil {
		return fmt.Errorf("textbook: %w", err)
	}
	return Run(ctx, Config{DatabaseURL: args[0], Brokers: args[1], Topic: args[2], Simulator: args[3], Addr: args[4], Workers: workers})
}

// Run serves until ctx ends.
func Run(ctx context.Context, c Config) error {
	config, err := pgxpool.ParseConfig(c.DatabaseURL)
	if err != nil {
		return err
	}
	config.MaxConns = 24 // as many as the service has
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	s := &service{Config: c, pool: pool, http: &http.Client{
		Timeout: 2 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: c.Workers, MaxConnsPerHost: c.Workers},
	}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/payments", s.create)
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Addr: c.Addr, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	context.AfterFunc(gctx, func() { _ = server.Close() })
	for range c.Workers {
		group.Go(func() error { return loop(gctx, 20*time.Millisecond, s.drive) })
	}
	group.Go(func() error { return s.relay(gctx) })
	group.Go(func() error { return s.project(gctx) })
	return group.Wait()
}

// loop calls work again at once while there is some, and else after a pause.
func loop(ctx context.Context, pause time.Duration, work func(context.Context) (more bool, err error)) error {
	for ctx.Err() == nil {
		more, err := work(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

type request struct {
	Amount        int64  `json:"amount"`
	Currency      string `json:"currency"`
	PaymentMethod string `json:"payment_method"`
	Customer      struct {
		Reference string `json:"reference"`
		Email     string `json:"email"`
	} `json:"customer"`
	Order struct {
		Reference string `json:"reference"`
		Lines     []Line `json:"lines"`
	} `json:"order"`
}

func (r request) valid() bool {
	sum := int64(0)
	for _, l := range r.Order.Lines {
		sum += l.Quantity * l.UnitAmount
	}
	return r.Amount > 0 && sum == r.Amount && len(r.Currency) == 3 && r.PaymentMethod != "" && r.Order.Reference != ""
}

var errConflict = errors.New("the idempotency key was used for another request")

func (s *service) create(w http.ResponseWriter, r *http.Request) {
	merchant, err := s.authenticate(r)
	if err != nil {
		http.Error(w, "unknown key", http.StatusUnauthorized)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
	var ask request
	if err != nil || json.Unmarshal(body, &ask) != nil || !ask.valid() {
		http.Error(w, "the request is not valid", http.StatusUnprocessableEntity)
		return
	}
	answer, err := s.place(r.Context(), merchant, r.Header.Get("Idempotency-Key"), body, ask)
	switch {
	case errors.Is(err, errConflict):
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		var made struct{ ID string }
		_ = json.Unmarshal(answer, &made) // our own
		w.Header().Set("Location", "/v1/payments/"+made.ID)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write(answer)
	}
}

func (s *service) authenticate(r *http.Request) (merchant string, err error) {
	key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	hash := sha256.Sum256([]byte(key))
	err = s.pool.QueryRow(r.Context(), `SELECT id FROM merchants WHERE api_key_sha256 = $1`, hash[:]).Scan(&merchant)
	return merchant, err
}

// place is one transaction: the key's row first, which makes a second request with it wait.
func (s *service) place(ctx context.Context, merchant, key string, body []byte, ask request) (answer []byte, err error) {
	p := Payment{
		ID: id("pay"), OrderID: id("ord"), SagaID: id("sag"), MerchantID: merchant, Amount: ask.Amount, Currency: ask.Currency,
		Method: ask.PaymentMethod, Customer: ask.Customer.Reference, Email: ask.Customer.Email, Reference: ask.Order.Reference, Lines: ask.Order.Lines,
	}
	fingerprint := sha256.Sum256(body)
	answer = fmt.Appendf(nil, `{"id":"%s","status":"processing","amount":%d,"currency":"%s"}`, p.ID, p.Amount, p.Currency)
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		made, err := tx.Exec(ctx, `
			INSERT INTO idempotency_keys (merchant_id, key, fingerprint, body) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
			merchant, key, fingerprint[:], answer)
		if err != nil {
			return err
		}
		if made.RowsAffected() == 1 {
			return Place(ctx, in(tx), p)
		}
		var before []byte
		if err := tx.QueryRow(ctx, `SELECT fingerprint, body FROM idempotency_keys WHERE merchant_id = $1 AND key = $2`,
			merchant, key).Scan(&before, &answer); err != nil {
			return err
		}
		if !bytes.Equal(before, fingerprint[:]) {
			return errConflict
		}
		return nil
	})
	return answer, err
}

func id(prefix string) string { return prefix + "_" + strings.ToLower(rand.Text()) }
