package main

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

// stack is what all contenders stand on: a durable Postgres and a broker in memory.
type stack struct {
	dir      string
	postgres *devstack.Postgres
	kafka    *devstack.Broker
	log      *slog.Logger
	made     int
}

func startStack(ctx context.Context, log *slog.Logger) (*stack, error) {
	dir, err := os.MkdirTemp("", "payments-bench-")
	if err != nil {
		return nil, err
	}
	s := &stack{dir: dir, log: log}
	if s.postgres, err = devstack.StartPostgres(ctx, devstack.PostgresConfig{Dir: dir, Durable: true, Log: log}); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if s.kafka, err = devstack.StartBroker(ctx, devstack.BrokerConfig{Log: log}); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *stack) stop() error {
	var err error
	if s.kafka != nil {
		err = s.kafka.Stop()
	}
	return errors.Join(err, s.postgres.Stop(), os.RemoveAll(s.dir))
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
	if p.broker, err = broker.NewClient([]string{s.kafka.Addr()}, broker.Config{}); err != nil {
		return nil, err
	}
	asking, err := kgo.NewClient(kgo.SeedBrokers(s.kafka.Addr()))
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
	return kgo.NewClient(kgo.SeedBrokers(p.stack.kafka.Addr()), kgo.ConsumeTopics(p.topic), kgo.ConsumeResetOffset(from))
}
