package scenario

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"payments/internal/payment"

	"payments/bench/load"
	"payments/bench/meter"
	"payments/bench/stack"
)

// neighbors are two merchants of one service. The first asks for as much as it can in one way, by
// several keys. Of the second a read and a POST now and then are measured, without the first and
// beside it.
type neighbors struct {
	*trial
	ids      payment.Generator
	merchant string   // the hostile one, which has many payments of earlier years
	keys     []string // of it
}

// attack is one way to ask for too much.
type attack struct {
	name    string
	clients int
	// prepare makes what the attack needs; nil: nothing.
	prepare func(ctx context.Context, n *neighbors) error
	// request makes the nth request; nil: payments are posted, at a moderate rate.
	request func(ctx context.Context, n *neighbors, i int64) (*http.Request, error)
}

// hostileKeys are as many as a merchant needs to multiply what is bounded for a key.
const hostileKeys = 5

func attacks() []attack {
	get := func(path string, headers ...string) func(context.Context, *neighbors, int64) (*http.Request, error) {
		return func(ctx context.Context, n *neighbors, i int64) (*http.Request, error) {
			return n.get(ctx, path, n.keys[i%hostileKeys], headers...)
		}
	}
	return []attack{
		{name: "waits", clients: 400, request: func(ctx context.Context, n *neighbors, i int64) (*http.Request, error) {
			never := "1 " + n.merchant + " " + n.ids.New(payment.PrefixPayment) + " 1" // as the service writes positions
			return n.get(ctx, "/v1/payments", n.keys[i%hostileKeys], "Read-After", base64.RawURLEncoding.EncodeToString([]byte(never)))
		}},
		{name: "fresh ids", clients: 200, request: func(ctx context.Context, n *neighbors, i int64) (*http.Request, error) {
			path := "/v1/payments/" + n.ids.New(payment.PrefixPayment) + []string{"", "/timeline", "/refunds"}[i%3]
			return n.get(ctx, path, n.keys[i%hostileKeys])
		}},
		{name: "exports", clients: 150, request: get("/v1/payments", "Accept", "text/csv")},
		{name: "streams", clients: 400, request: get("/v1/events")},
		{name: "searches", clients: 64, request: get("/v1/payments?q=a&limit=100&count=estimated")},
		{name: "wrong keys", clients: 64, request: func(ctx context.Context, n *neighbors, _ int64) (*http.Request, error) {
			return n.get(ctx, "/v1/payments", n.wrongKey())
		}},
		{name: "slow endpoints", prepare: func(ctx context.Context, n *neighbors) error { return n.slowEndpoints(ctx) }},
	}
}

// wrongKey is written as an API key is, with right check digits, and was given to nobody.
func (n *neighbors) wrongKey() string {
	encoding := base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)
	var secret [20]byte
	_, _ = rand.Read(secret[:]) // never fails (crypto/rand)
	key := "sk_test_" + strings.TrimPrefix(n.ids.New(payment.PrefixKey), payment.PrefixKey+"_") + encoding.EncodeToString(secret[:])
	return key + encoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(key))))
}

func (n *neighbors) get(ctx context.Context, path, key string, headers ...string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.Services[0].URL+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+key)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r, nil
}

func neighbourContenders() (all []contender) {
	for _, a := range attacks() {
		all = append(all, contender{name: a.name, measure: a.measure})
	}
	return all
}

func (a attack) measure(ctx context.Context, r *Runner) (v Values, err error) {
	seeded := "100000"
	if r.Quick {
		seeded = "5000"
	}
	t, err := r.open(ctx, setup{
		merchants: 2, vars: map[string]string{"PAYMENTS_RATE_LIMIT": "2000"}, // the default
		before: func(ctx context.Context, i *stack.Install) error {
			_, err := i.Run(ctx, "seed", "-payments", seeded, "-merchants", "1", "-timelines", "1000")
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	n := &neighbors{trial: t, ids: payment.Generator{Now: time.Now, Random: rand.Reader}}
	if v, err = n.beside(ctx, r, a); err != nil {
		return nil, errors.Join(err, t.close(context.WithoutCancel(ctx)))
	}
	return v, t.finish(ctx)
}

func (n *neighbors) beside(ctx context.Context, r *Runner, a attack) (Values, error) {
	if err := n.hostile(ctx, r); err != nil {
		return nil, err
	}
	var made load.Tally
	var ids []string
	for range 50 {
		paid, err := n.client.Pay(ctx, 1, false)
		if err != nil {
			return nil, err
		}
		ids = append(ids, paid.ID)
		n.watcher.Watch(paid.Merchant, paid.ID, made.Ended)
	}
	if err := n.watcher.Settle(ctx, settle); err != nil {
		return nil, err
	}
	if a.prepare != nil {
		if err := a.prepare(ctx, n); err != nil {
			return nil, err
		}
	}
	during := r.short(5*time.Second, 30*time.Second)
	v := Values{}
	if err := n.other(ctx, v, "quiet", during, ids); err != nil {
		return nil, err
	}
	attacking, stop := context.WithCancel(ctx)
	defer stop()
	h := &load.Hostile{Clients: a.clients, Request: func(ctx context.Context, i int64) (*http.Request, error) { return a.request(ctx, n, i) }}
	var posted load.Tally
	var group errgroup.Group
	group.Go(func() error {
		if a.request != nil {
			return h.Run(attacking)
		}
		load.Open{Client: n.client, Watcher: n.watcher, Rate: 10, Pick: func() int { return 0 }}.Run(attacking, &posted)
		return posted.Err()
	})
	err := wait(ctx, r.short(2*time.Second, 10*time.Second)) // until all that can be held is held
	answered, refused := h.Answered.Load(), h.Refused.Load()
	if err == nil {
		err = n.other(ctx, v, "beside", during, ids)
	}
	v["answered_per_s"] = float64(h.Answered.Load()-answered) / during.Seconds()
	v["refused_per_s"] = float64(h.Refused.Load()-refused) / during.Seconds()
	stop()
	return v, errors.Join(err, group.Wait(), healthy(&made))
}

// hostile finds the merchant of the seeded payments and makes its keys.
func (n *neighbors) hostile(ctx context.Context, r *Runner) (err error) {
	conn, err := pgx.Connect(ctx, r.running.URL("postgres", n.Database))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if err := conn.QueryRow(ctx, `SELECT merchant_id FROM payment_view GROUP BY merchant_id ORDER BY count(*) DESC LIMIT 1`).Scan(&n.merchant); err != nil {
		return fmt.Errorf("find the seeded merchant: %w", err)
	}
	for range hostileKeys {
		key, err := n.MakeKey(ctx, n.merchant)
		if err != nil {
			return err
		}
		n.keys = append(n.keys, key)
	}
	return nil
}

// other measures the other merchant: 20 reads a second, of a payment and of the newest page in turn,
// and 5 payments.
func (n *neighbors) other(ctx context.Context, v Values, phase string, during time.Duration, ids []string) error {
	measuring, stop := context.WithTimeout(ctx, during)
	defer stop()
	var reads meter.Latencies
	var posts load.Tally
	var group errgroup.Group
	group.Go(func() error {
		load.Open{Client: n.client, Watcher: n.watcher, Rate: 5, Pick: func() int { return 1 }}.Run(measuring, &posts)
		return healthy(&posts)
	})
	group.Go(func() error {
		var reading errgroup.Group
		due := time.NewTicker(time.Second / 20)
		defer due.Stop()
		for i := 0; ; i++ {
			select {
			case <-measuring.Done():
				return reading.Wait()
			case at := <-due.C:
				path := "/v1/payments/" + ids[i%len(ids)]
				if i%2 == 1 {
					path = "/v1/payments?limit=20"
				}
				reading.Go(func() error {
					err := n.client.Get(ctx, 1, path)
					reads.Add(time.Since(at))
					return err
				})
			}
		}
	})
	if err := group.Wait(); err != nil {
		return fmt.Errorf("the other merchant, %s: %w", phase, err)
	}
	quantiles(v, phase+"_read", &reads)
	quantiles(v, phase+"_post", &posts.Answers)
	v[phase+"_shed"] = float64(posts.Shed.Load())
	return nil
}

// slowEndpoints gives the first merchant ten endpoints that take each delivery and answer after 9 s.
// Its own payments then cause the deliveries.
func (n *neighbors) slowEndpoints(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = wait(r.Context(), 9*time.Second)
	})}
	go func() { _ = server.Serve(l) }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	client := &http.Client{Timeout: 10 * time.Second}
	for i := range 10 {
		body := `{"url": "http://` + l.Addr().String() + `/` + strconv.Itoa(i) + `", "events": ["*"]}`
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, n.Services[0].URL+"/v1/webhook_endpoints", strings.NewReader(body))
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+n.Merchants[0].Key)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", "endpoint-"+strconv.Itoa(i))
		answer, err := client.Do(r)
		if err != nil {
			return err
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusCreated {
			return fmt.Errorf("an endpoint was answered %d", answer.StatusCode)
		}
	}
	return nil
}
