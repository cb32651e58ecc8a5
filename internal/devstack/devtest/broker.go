package devtest

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"payments/internal/devstack"
)

// The tests run against a Kafka that is already there when the first names it
// (host:port, several by comma); the second is a program that takes `stop` and
// `start` for it. The third names a file that gets a line for each test that asks for a broker:
// its package's directory and its name.
const (
	brokersVariable = "PAYMENTS_TEST_KAFKA_BROKERS"
	scriptVariable  = "PAYMENTS_TEST_KAFKA_SCRIPT"
	listVariable    = "PAYMENTS_TEST_BROKER_LIST"
)

// restartWithin bounds one stop or start of a real Kafka.
const restartWithin = 2 * time.Minute

func sharedBrokers() []string {
	if list := os.Getenv(brokersVariable); list != "" {
		return strings.Split(list, ",")
	}
	return nil
}

// list the test among those that face a broker.
func list(tb testing.TB) {
	tb.Helper()
	path := os.Getenv(listVariable)
	if path == "" {
		return
	}
	name, _, _ := strings.Cut(tb.Name(), "/")
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		tb.Fatal(err)
	}
	_, err = f.WriteString(dir + " " + name + "\n") // one write, so that packages can share the file
	if err := errors.Join(err, f.Close()); err != nil {
		tb.Fatal(err)
	}
}

// Brokers are the bootstrap addresses of a broker of the test's own, in memory, or of
// the real Kafka that all tests share.
func Brokers(tb testing.TB) []string {
	tb.Helper()
	list(tb)
	if shared := sharedBrokers(); shared != nil {
		return shared
	}
	b, err := devstack.StartBroker(tb.Context(), devstack.BrokerConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return []string{b.Addr()}
}

// Topic is a name that no other test has, on a shared broker too.
func Topic(tb testing.TB) string {
	tb.Helper()
	return "test." + strings.ToLower(rand.Text()[:16])
}

// Broker keeps its log and its offsets from a Stop to the next Start.
type Broker struct {
	tb     testing.TB
	addr   string
	config devstack.BrokerConfig
	local  *devstack.Broker
	script string
	down   bool
}

// RestartableBroker runs and is left running for the tests that come after. With a real
// Kafka, tests that use it must not run beside others.
func RestartableBroker(tb testing.TB) *Broker {
	tb.Helper()
	list(tb)
	b := &Broker{tb: tb}
	if shared := sharedBrokers(); shared != nil {
		if b.script = os.Getenv(scriptVariable); b.script == "" {
			tb.Skipf("%s names a broker, but %s does not say how to stop and start it", brokersVariable, scriptVariable)
		}
		b.addr = shared[0]
		tb.Cleanup(b.restore)
		return b
	}
	b.config = devstack.BrokerConfig{Dir: tb.TempDir()}
	b.down = true
	b.Start()
	b.addr, b.config.Port = b.local.Addr(), b.local.Port()
	tb.Cleanup(b.Stop)
	return b
}

// Addr is its bootstrap address, the same after a Start.
func (b *Broker) Addr() string { return b.addr }

// Stop of a stopped broker does nothing.
func (b *Broker) Stop() {
	b.tb.Helper()
	if b.down {
		return
	}
	b.down = true
	if b.script != "" {
		b.run("stop")
		return
	}
	if err := b.local.Stop(); err != nil {
		b.tb.Fatal(err)
	}
}

// Start of a running broker does nothing.
func (b *Broker) Start() {
	b.tb.Helper()
	if !b.down {
		return
	}
	b.down = false
	if b.script != "" {
		b.run("start")
		return
	}
	local, err := devstack.StartBroker(context.WithoutCancel(b.tb.Context()), b.config)
	if err != nil {
		b.tb.Fatal(err)
	}
	b.local = local
}

func (b *Broker) restore() { b.Start() }

func (b *Broker) run(verb string) {
	b.tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.tb.Context()), restartWithin)
	defer cancel()
	if out, err := exec.CommandContext(ctx, b.script, verb).CombinedOutput(); err != nil {
		b.tb.Fatalf("%s %s: %v\n%s", b.script, verb, err, out)
	}
}
