package relays

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"payments/internal/broker"
	"payments/internal/loop"
	"payments/internal/outbox"
)

// event is as large as the service's own: eight headers and some 600 bytes.
type event struct {
	key      string
	sequence int64
	payload  []byte
}

func (e event) id() string { return e.key + "-" + strconv.FormatInt(e.sequence, 10) }

func (e event) headers() []outbox.Header {
	return []outbox.Header{
		{Key: "ce_specversion", Value: "1.0"},
		{Key: "ce_id", Value: e.id()},
		{Key: "ce_type", Value: "payment.authorized"},
		{Key: "ce_source", Value: "/payments"},
		{Key: "ce_subject", Value: "pay_01jz3c5k8yf4v9w2m6q7r8s9t0"},
		{Key: "ce_time", Value: "2026-01-02T03:04:05.678901Z"},
		{Key: "ce_sequence", Value: strconv.FormatInt(e.sequence, 10)},
		{Key: "content-type", Value: "application/json"},
	}
}

func (e event) message(topic string) outbox.Message {
	return outbox.Message{
		MerchantID: "mer_01jz3c5k8yf4v9w2m6q7r8s9t0", ID: e.id(), Topic: topic, Key: e.key, Sequence: e.sequence,
		Headers: e.headers(), Payload: e.payload,
	}
}

// contender relays what was appended until its context ends. It calls ready when it
// begins to: the start of a virtual machine is no part of its rate.
type contender struct {
	name      string
	openTx    bool // a transaction with an id stays open beside it
	realKafka bool // on a real Kafka
	prepare   func(ctx context.Context, p *place) error
	append    func(ctx context.Context, p *place, tx pgx.Tx, events []event) error
	relay     func(ctx context.Context, p *place, ready func()) error
}

func contenders() []contender {
	ours := contender{name: "ours", prepare: prepareOurs, append: appendOurs, relay: relayOurs}
	open := ours
	open.name, open.openTx = "ours-open-tx", true
	kafka := ours
	kafka.name, kafka.realKafka = "ours-kafka", true
	update := contender{name: "flag-update", prepare: prepareFlag, append: appendFlag, relay: relayFlag}
	updateOpen := update
	updateOpen.name, updateOpen.openTx = "flag-update-open-tx", true
	return []contender{
		ours, open, update, updateOpen,
		{name: "watermill", prepare: prepareWatermill, append: appendWatermill, relay: relayWatermill},
		kafka, {name: "debezium", realKafka: true, prepare: prepareDebezium, append: appendDebezium, relay: relayDebezium},
	}
}

func prepareOurs(ctx context.Context, p *place) error { return nil }

func appendOurs(ctx context.Context, p *place, tx pgx.Tx, events []event) error {
	msgs := make([]outbox.Message, len(events))
	for i, e := range events {
		msgs[i] = e.message(p.topic)
	}
	return outbox.Append(ctx, tx, msgs...)
}

// relayOurs is wired as in cmd/payments.
func relayOurs(ctx context.Context, p *place, ready func()) error {
	reg := prometheus.NewRegistry()
	r, err := outbox.NewRelay(p.pool, broker.NewPublisher(p.broker), outbox.RelayConfig{
		Shards: partitions, Registerer: reg, Log: p.stack.log,
	})
	if err != nil {
		return err
	}
	keeper, err := outbox.NewKeeper(p.pool, outbox.KeeperConfig{Registerer: reg, Log: p.stack.log})
	if err != nil {
		return err
	}
	monitor := loop.NewMonitor(time.Now, reg)
	var keeping sync.WaitGroup
	var kept error
	keeping.Go(func() {
		kept = loop.Run(ctx, loop.Config{Name: "outbox_keeper", Interval: 5 * time.Second, RunOnce: keeper.RunOnce, Monitor: monitor, Log: p.stack.log})
	})
	ready()
	err = loop.Run(ctx, loop.Config{
		Name: "relay", Interval: 5 * time.Millisecond, RunOnce: r.RunOnce, Monitor: monitor, Log: p.stack.log,
	})
	keeping.Wait()
	return errors.Join(err, kept, r.Release(context.WithoutCancel(ctx)))
}

// The poller that is written first: a flag, a locked batch, an UPDATE. With one of
// it and an index that holds only what is unpublished, it is at its best.
func prepareFlag(ctx context.Context, p *place) error {
	_, err := p.owner.Exec(ctx, `
		CREATE TABLE flagged (
			position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text NOT NULL, headers jsonb NOT NULL,
			payload bytea NOT NULL, published boolean NOT NULL DEFAULT false);
		CREATE INDEX flagged_unpublished ON flagged (position) WHERE NOT published;
		GRANT ALL ON flagged TO PUBLIC`)
	return err
}

func appendFlag(ctx context.Context, _ *place, tx pgx.Tx, events []event) error {
	keys, headers, payloads := make([]string, len(events)), make([][]outbox.Header, len(events)), make([][]byte, len(events))
	for i, e := range events {
		keys[i], headers[i], payloads[i] = e.key, e.headers(), e.payload
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO flagged (key, headers, payload)
		SELECT * FROM unnest($1::text[], $2::jsonb[], $3::bytea[])`, keys, headers, payloads)
	return err
}

func relayFlag(ctx context.Context, p *place, ready func()) error {
	publisher := broker.NewPublisher(p.broker)
	turn := func(ctx context.Context) (bool, error) {
		n := 0
		err := pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, `
				SELECT position, key, headers, payload FROM flagged WHERE NOT published
				ORDER BY position LIMIT 5000 FOR UPDATE SKIP LOCKED`)
			if err != nil {
				return err
			}
			var positions []int64
			msgs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m outbox.Message, err error) {
				var position int64
				err = row.Scan(&position, &m.Key, &m.Headers, &m.Payload)
				positions, m.Topic = append(positions, position), p.topic
				return m, err
			})
			n = len(msgs)
			if err != nil || n == 0 {
				return err
			}
			if err := publisher.Publish(ctx, msgs); err != nil {
				return err
			}
			_, err = tx.Exec(ctx, `UPDATE flagged SET published = true WHERE position = ANY ($1)`, positions)
			return err
		})
		return n == 5000, err
	}
	reg := prometheus.NewRegistry()
	ready()
	return loop.Run(ctx, loop.Config{
		Name: "poller", Interval: 5 * time.Millisecond, RunOnce: turn, Monitor: loop.NewMonitor(time.Now, reg), Log: p.stack.log,
	})
}

func fill(ctx context.Context, p *place, c contender, n int) error {
	const batch = 500
	for first := 0; first < n; first += batch {
		err := pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
			var events []event
			for i := first; i < min(first+batch, n); i++ {
				events = append(events, event{"backlog-" + strconv.Itoa(i%2000), int64(i/2000) + 1, payload(0)})
			}
			return c.append(ctx, p, tx, events)
		})
		if err != nil {
			return fmt.Errorf("fill: %w", err)
		}
	}
	return nil
}
