package devstack

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// BrokerConfig is complete when empty: a broker in memory on a free port.
type BrokerConfig struct {
	// Dir keeps the log and the groups' offsets; empty keeps them in memory.
	Dir string
	// Port 0 is the one of the last start on Dir when that is free, else any free one.
	Port int
	// Partitions of a topic that is made by its first use or names none; 0 is 8.
	Partitions int
	// Sync survives a crash of the machine: fsync after every batch. Without it only a
	// crash of the process is survived.
	Sync bool
	// TLS, when set, is spoken on every connection.
	TLS *tls.Config
	// Users, when there are any, are the only ones who may connect.
	Users []BrokerUser
	Log   *slog.Logger
}

// BrokerUser has a Mechanism of SASL: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
type BrokerUser struct{ Mechanism, Name, Password string }

// Broker is one Kafka node on 127.0.0.1 inside this process.
type Broker struct {
	cluster *kfake.Cluster
	addr    string
	lock    io.Closer
}

// StartBroker goes on with the log and the offsets of Dir, if there are any. Topics
// are made when they are first used.
func StartBroker(ctx context.Context, config BrokerConfig) (*Broker, error) {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Partitions == 0 {
		config.Partitions = 8
	}
	b := &Broker{lock: io.NopCloser(nil)}
	options := []kfake.Opt{
		kfake.NumBrokers(1), kfake.AllowAutoTopicCreation(), kfake.DefaultNumPartitions(config.Partitions),
		kfake.GroupMinSessionTimeout(time.Second), kfake.ListenFn(listenUnanswered), kfake.WithLogger(brokerLog{ctx: context.WithoutCancel(ctx), log: config.Log}),
	}
	port := config.Port
	var err error
	if config.Dir != "" {
		if err := os.MkdirAll(config.Dir, 0o750); err != nil {
			return nil, fmt.Errorf("start the broker: %w", err)
		}
		if b.lock, err = Lock(config.Dir); err != nil {
			return nil, fmt.Errorf("start the broker: %w", err)
		}
		if port, err = choosePort(ctx, filepath.Join(config.Dir, "port"), config.Port); err != nil {
			return nil, errors.Join(fmt.Errorf("start the broker: %w", err), b.lock.Close())
		}
		options = append(options, kfake.DataDir(filepath.Join(config.Dir, "log")))
	}
	if config.Sync {
		options = append(options, kfake.SyncWrites())
	}
	if port != 0 {
		options = append(options, kfake.Ports(port))
	}
	if config.TLS != nil {
		options = append(options, kfake.TLS(config.TLS))
	}
	for _, u := range config.Users {
		options = append(options, kfake.EnableSASL(), kfake.Superuser(u.Mechanism, u.Name, u.Password))
	}
	if b.cluster, err = kfake.NewCluster(options...); err != nil {
		return nil, errors.Join(fmt.Errorf("start the broker: %w", err), b.lock.Close())
	}
	b.addr = b.cluster.ListenAddrs()[0]
	config.Log.InfoContext(ctx, "broker is ready", "addr", b.addr)
	return b, nil
}

// Addr is its bootstrap address, host:port.
func (b *Broker) Addr() string { return b.addr }

// Port of Addr.
func (b *Broker) Port() int {
	_, port, _ := net.SplitHostPort(b.addr) // a listener's own
	n, _ := strconv.Atoi(port)
	return n
}

// Stop drops every connection and writes everything down.
func (b *Broker) Stop() error {
	b.cluster.Close()
	if err := b.lock.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("release the broker's directory: %w", err)
	}
	return nil
}

// brokerLog tells faults as warnings and the rest, which is each request, for debugging.
type brokerLog struct {
	ctx context.Context //nolint:containedctx // kfake's logger is handed none
	log *slog.Logger
}

func (l brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	at := slog.LevelDebug
	if level != kfake.LogLevelNone && level <= kfake.LogLevelWarn {
		at = slog.LevelWarn
	}
	if l.log.Enabled(l.ctx, at) {
		l.log.Log(l.ctx, at, "broker", "says", fmt.Sprintf(format, args...))
	}
}
