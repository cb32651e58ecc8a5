package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"payments/internal/devstack"
	"payments/internal/payment"
)

// Articles are SKU-0 to SKU-999, and each merchant has Stock of each.
const (
	SKU   = "BENCH"
	SKUs  = 1000
	Stock = 1_000_000_000
	// ulidLength is what an API key's id has behind its prefix, and the key's text behind its own.
	ulidLength = 26
)

// Merchant has a key and stock.
type Merchant struct{ ID, Key string }

// Install is one installation of the service: a database, topics, a simulator and services.
type Install struct {
	Database  string
	Merchants []Merchant
	Simulator *Process
	Services  []*Process

	stack *Stack
	dir   string
	vars  map[string]string
}

// Install makes a fresh installation whose simulator runs and whose merchants have stock. No service
// runs yet.
func (s *Stack) Install(ctx context.Context, merchants int) (*Install, error) {
	name, err := s.Database(ctx)
	if err != nil {
		return nil, err
	}
	i := &Install{Database: name, stack: s, dir: s.dir}
	if err := errors.Join(i.configure(ctx), i.seed(ctx, merchants)); err != nil {
		return nil, err
	}
	if i.Simulator, err = start(s.dir, name+"-simulator", s.Program, i.vars, "simulator"); err != nil {
		return nil, err
	}
	if err := i.Simulator.ready(ctx, i.vars["PAYMENTS_PROVIDER_URL"]+"/healthz"); err != nil {
		return nil, errors.Join(err, i.Stop())
	}
	return i, nil
}

// configure is what `payments demo` sets, without the rate limit.
func (i *Install) configure(ctx context.Context) error {
	simulator, err := address(ctx)
	if err != nil {
		return err
	}
	api, err := address(ctx)
	if err != nil {
		return err
	}
	i.vars = map[string]string{
		"PAYMENTS_DATABASE_URL":           i.stack.URL(devstack.ServiceRole, i.Database),
		"PAYMENTS_MIGRATE_DATABASE_URL":   i.stack.URL(devstack.OwnerRole, i.Database),
		"PAYMENTS_KAFKA_BROKERS":          i.stack.Brokers,
		"PAYMENTS_KAFKA_PREFIX":           fmt.Sprintf("bench.%s.", strings.ReplaceAll(i.Database, "_", "-")),
		"PAYMENTS_KAFKA_FENCING":          "on",
		"PAYMENTS_RATE_LIMIT":             "0",
		"PAYMENTS_SIMULATOR_ADDR":         simulator,
		"PAYMENTS_SIMULATOR_DATA":         filepath.Join(i.dir, i.Database+"-simulator.db"),
		"PAYMENTS_SIMULATOR_WEBHOOK_URL":  "http://" + api + "/v1/provider/webhooks/simulator",
		"PAYMENTS_PROVIDER_URL":           "http://" + simulator,
		"PAYMENTS_PROVIDER_TIMEOUT":       "2s",
		"PAYMENTS_PROVIDER_HORIZON":       "5s",
		"PAYMENTS_WEBHOOKS_ALLOW_PRIVATE": "true",
		"PAYMENTS_ADDR":                   api,
	}
	secrets, err := i.Run(ctx, "secrets")
	if err != nil {
		return err
	}
	for line := range strings.Lines(secrets) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.HasPrefix(name, "PAYMENTS_") {
			i.vars[name] = value
		}
	}
	i.vars["PAYMENTS_PROVIDER_WEBHOOK_SECRETS"] = i.vars["PAYMENTS_SIMULATOR_WEBHOOK_SECRET"]
	if _, err := i.Run(ctx, "migrate"); err != nil {
		return err
	}
	_, err = i.Run(ctx, "seed")
	return err
}

// seed gives the first merchant the demo's, and makes the others.
func (i *Install) seed(ctx context.Context, merchants int) error {
	conn, err := pgx.Connect(ctx, i.stack.URL(devstack.OwnerRole, i.Database))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for n := range merchants {
		m := Merchant{Key: i.vars["PAYMENTS_API_KEY"]}
		if n == 0 {
			err = conn.QueryRow(ctx, `SELECT id FROM merchants WHERE name = 'Demo shop'`).Scan(&m.ID)
		} else {
			m, err = i.makeMerchant(ctx, conn, n)
		}
		if err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, `
			INSERT INTO stock (merchant_id, sku, received, on_hand)
			SELECT $1, $2 || '-' || n, $3::bigint, $3::bigint FROM generate_series(0, $4::int - 1) n`, m.ID, SKU, Stock, SKUs); err != nil {
			return fmt.Errorf("make stock: %w", err)
		}
		i.Merchants = append(i.Merchants, m)
	}
	return nil
}

func (i *Install) makeMerchant(ctx context.Context, conn *pgx.Conn, n int) (m Merchant, err error) {
	m.ID = fmt.Sprintf("mer_0%025d", n)
	if _, err := conn.Exec(ctx, `INSERT INTO merchants (id, name) VALUES ($1, $2)`, m.ID, "Shop "+strconv.Itoa(n)); err != nil {
		return m, fmt.Errorf("make merchant: %w", err)
	}
	m.Key, err = i.MakeKey(ctx, m.ID)
	return m, err
}

// MakeKey makes a merchant's API key. It takes two persons, of whom each gets a part.
func (i *Install) MakeKey(ctx context.Context, merchantID string) (string, error) {
	out, err := i.Run(ctx, "keys", "create", "-role", "merchant", "-merchant", merchantID)
	if err != nil {
		return "", err
	}
	first := strings.TrimSpace(out)
	id := strings.TrimPrefix(first, "sk_test_")
	if len(id) < ulidLength {
		return "", fmt.Errorf("payments keys create printed no first part of a key, but %d characters", len(first))
	}
	second, err := i.run(ctx, map[string]string{"PAYMENTS_OPERATOR_KEY": i.vars["PAYMENTS_OPERATOR_KEY_2"]}, "keys", "approve", payment.PrefixKey+"_"+id[:ulidLength])
	return first + strings.TrimSpace(second), err
}

// Serve starts a service and waits until it is ready. The first one has the address that the
// simulator notifies.
func (i *Install) Serve(ctx context.Context, vars map[string]string) (*Process, error) {
	own := maps.Clone(i.vars)
	var err error
	if len(i.Services) > 0 {
		if own["PAYMENTS_ADDR"], err = address(ctx); err != nil {
			return nil, err
		}
	}
	if own["PAYMENTS_ADMIN_ADDR"], err = address(ctx); err != nil {
		return nil, err
	}
	maps.Copy(own, vars)
	p, err := start(i.dir, fmt.Sprintf("%s-serve-%d", i.Database, len(i.Services)+1), i.stack.Program, own, "serve")
	if err != nil {
		return nil, err
	}
	i.Services = append(i.Services, p)
	p.URL, p.Admin = "http://"+own["PAYMENTS_ADDR"], "http://"+own["PAYMENTS_ADMIN_ADDR"]
	err = p.ready(ctx, p.Admin+"/readyz")
	return p, err
}

// Peer is an installation whose service is a subcommand of this program, with a simulator that notifies
// nobody. What prepare gives are the subcommand's arguments.
func (s *Stack) Peer(ctx context.Context, merchant Merchant, prepare func(ownerURL, simulatorURL, address, topic string) ([]string, error)) (*Install, error) {
	name, err := s.Database(ctx)
	if err != nil {
		return nil, err
	}
	i := &Install{Database: name, Merchants: []Merchant{merchant}, stack: s, dir: s.dir}
	simulator, err := address(ctx)
	if err != nil {
		return nil, err
	}
	addr, err := address(ctx)
	if err != nil {
		return nil, err
	}
	i.vars = map[string]string{
		"PAYMENTS_SIMULATOR_ADDR": simulator, "PAYMENTS_SIMULATOR_DATA": filepath.Join(s.dir, name+"-simulator.db"),
		"PAYMENTS_KAFKA_PREFIX": fmt.Sprintf("bench.%s.", strings.ReplaceAll(name, "_", "-")),
	}
	if i.Simulator, err = start(s.dir, name+"-simulator", s.Program, i.vars, "simulator"); err != nil {
		return nil, err
	}
	args, err := prepare(s.URL(devstack.OwnerRole, name), "http://"+simulator, addr, i.Topics()+"events")
	if err == nil {
		err = i.Simulator.ready(ctx, "http://"+simulator+"/healthz")
	}
	if err == nil {
		err = i.serveSelf(ctx, addr, args)
	}
	if err != nil {
		return nil, errors.Join(err, i.Stop())
	}
	return i, nil
}

func (i *Install) serveSelf(ctx context.Context, addr string, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p, err := start(i.dir, i.Database+"-"+args[0], self, map[string]string{}, args...)
	if err != nil {
		return err
	}
	p.URL = "http://" + addr
	i.Services = append(i.Services, p)
	return p.ready(ctx, p.URL+"/readyz")
}

// Run waits for a subcommand and gives its standard output.
func (i *Install) Run(ctx context.Context, args ...string) (string, error) {
	return i.run(ctx, nil, args...)
}

// run with these variables in the place of the installation's own.
func (i *Install) run(ctx context.Context, vars map[string]string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, i.stack.Program, args...) //nolint:gosec // the program under test
	var out, errs bytes.Buffer
	all := maps.Clone(i.vars)
	maps.Copy(all, vars)
	c.Env, c.Stdout, c.Stderr = environ(all), &out, &errs
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("payments %s: %w: %s%s", strings.Join(args, " "), err, out.Bytes(), errs.Bytes())
	}
	return out.String(), nil
}

// Audit fails unless every invariant holds. It is right under load, too.
func (i *Install) Audit(ctx context.Context, args ...string) error {
	_, err := i.Run(ctx, append([]string{"audit"}, args...)...)
	return err
}

// PIDs of everything that works for the installation, by name. All services are one name.
func (i *Install) PIDs() (map[string]int, error) {
	pids, err := i.stack.PIDs()
	if err != nil {
		return nil, err
	}
	pids["simulator"] = i.Simulator.PID()
	for n, s := range i.Services {
		pids["service "+strconv.Itoa(n+1)] = s.PID()
	}
	return pids, nil
}

// StopServices ends the services alone, which lets Postgres have all their statistics.
func (i *Install) StopServices() error {
	var err error
	for _, s := range i.Services {
		err = errors.Join(err, s.Stop())
	}
	i.Services = nil
	return err
}

// Stop ends the services and the simulator. The database stays until the stack's end.
func (i *Install) Stop() error { return errors.Join(i.StopServices(), i.Simulator.Stop()) }

// Topics is the prefix of the installation's topics and consumer groups.
func (i *Install) Topics() string { return i.vars["PAYMENTS_KAFKA_PREFIX"] }
