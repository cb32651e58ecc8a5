package relays

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"payments/internal/broker"
	"payments/internal/devstack"
	"payments/internal/postgres"
)

const partitions = 6

// stack is what contenders stand on: a durable Postgres and a broker, which is one in
// this process's memory or a real Apache Kafka.
type stack struct {
	dir       string
	postgres  *devstack.Postgres
	kafka     string // host:port
	stopKafka func() error
	log       *slog.Logger
	made      int
}

// startStack with a real Kafka has a Postgres that can be read by its log; the other
// stays as a service that has no use for that would run it.
func startStack(ctx context.Context, realKafka bool, log *slog.Logger) (*stack, error) {
	dir, err := os.MkdirTemp("", "payments-bench-")
	if err != nil {
		return nil, err
	}
	s := &stack{dir: dir, log: log, stopKafka: func() error { return nil }}
	config, start := devstack.PostgresConfig{Dir: dir, Durable: true, Log: log}, s.startBroker
	if realKafka {
		config.Settings, start = []string{"wal_level=logical"}, s.startKafka
	}
	if s.postgres, err = devstack.StartPostgres(ctx, config); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := start(ctx); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *stack) startBroker(ctx context.Context) error {
	b, err := devstack.StartBroker(ctx, devstack.BrokerConfig{Log: s.log})
	if err != nil {
		return err
	}
	s.kafka, s.stopKafka = b.Addr(), b.Stop
	return nil
}

func (s *stack) stop() error {
	return errors.Join(s.stopKafka(), s.postgres.Stop(), os.RemoveAll(s.dir))
}

// place is a contender's own database and topic.
type place struct {
	stack  *stack
	pool   *pgxpool.Pool // the service's role
	owner  *pgxpool.Pool
	broker *broker.Client
	admin  *kadm.Client
	topic  string
}

func (s *stack) place(ctx context.Context) (*place, error) {
	s.made++
	name := fmt.Sprintf("bench_%d", s.made)
	if err := s.postgres.Provision(ctx, name); err != nil {
		return nil, err
	}
	ownerURL, url := s.postgres.URL(devstack.OwnerRole, name), s.postgres.URL(devstack.ServiceRole, name)
	if err := postgres.Migrate(ctx, ownerURL, url); err != nil {
		return nil, err
	}
	p := &place{stack: s, topic: name}
	var err error
	if p.pool, err = postgres.Open(ctx, url); err != nil {
		return nil, err
	}
	if p.owner, err = postgres.Open(ctx, ownerURL); err != nil {
		return nil, err
	}
	if p.broker, err = broker.NewClient([]string{s.kafka}, broker.Config{}); err != nil {
		return nil, err
	}
	asking, err := kgo.NewClient(kgo.SeedBrokers(s.kafka))
	if err != nil {
		return nil, err
	}
	p.admin = kadm.NewClient(asking)
	return p, p.broker.EnsureTopic(ctx, p.topic, partitions)
}

func (p *place) close() {
	p.admin.Close()
	p.broker.Close()
	p.pool.Close()
	p.owner.Close()
}

// consumer reads the place's topic from the given end of it.
func (p *place) consumer(from kgo.Offset) (*kgo.Client, error) {
	return kgo.NewClient(kgo.SeedBrokers(p.stack.kafka), kgo.ConsumeTopics(p.topic), kgo.ConsumeResetOffset(from))
}
