package relays

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Debezium's outbox: its connector follows Postgres' log and its event router makes a
// message of each row. A worker of Kafka Connect, standalone, runs one connector.
//
// What differs from the defaults, for its good:
//
//   - poll.interval.ms is 5, as ours asks every 5 ms. At 500 a batch that is not full
//     waits that long.
//   - max.batch.size and max.queue.size are twice theirs, batch.size of the producer is
//     eight times its: fewer and larger requests in the drain.
//   - The producer is idempotent with five requests under way, which keeps order; Connect
//     would have one.
//   - The payload is text and goes through StringConverter: bytea would be sent as
//     hexadecimal digits, and jsonb be parsed.
//   - The table is only inserted to. That nobody deletes its rows costs nothing here.
//
// acks is all and linger 0, as ours. It starts at the slot, with no snapshot, so that
// every event is read from the log. Of the headers, id is the router's own and the
// others are columns, each placed in a header.
const connectHeap = "-Xmx512m"

func connectWorker(p *place, dir string) string {
	return properties(
		"bootstrap.servers", p.stack.kafka,
		"listeners", "http://127.0.0.1:0",
		"plugin.discovery", "service_load",
		"key.converter", "org.apache.kafka.connect.storage.StringConverter",
		"value.converter", "org.apache.kafka.connect.storage.StringConverter",
		"header.converter", "org.apache.kafka.connect.storage.StringConverter",
		"offset.storage.file.filename", filepath.Join(dir, "offsets"),
		"connector.client.config.override.policy", "None",
		"producer.acks", "all",
		"producer.linger.ms", "0",
		"producer.batch.size", "131072",
		"producer.enable.idempotence", "true",
		"producer.max.in.flight.requests.per.connection", "5",
	)
}

func connector(p *place) (string, error) {
	u, err := url.Parse(p.stack.postgres.URL("postgres", p.topic))
	if err != nil {
		return "", err
	}
	password, _ := u.User.Password()
	var headers []string
	for _, h := range debeziumHeaders() {
		headers = append(headers, column(h)+":header:"+h)
	}
	return properties(
		"name", p.topic,
		"connector.class", "io.debezium.connector.postgresql.PostgresConnector",
		"tasks.max", "1",
		"database.hostname", u.Hostname(), "database.port", u.Port(), "database.dbname", p.topic,
		"database.user", u.User.Username(), "database.password", password, "database.sslmode", "disable",
		"topic.prefix", p.topic,
		"plugin.name", "pgoutput",
		"slot.name", p.topic,
		"publication.name", "debezium", "publication.autocreate.mode", "disabled",
		"table.include.list", "public.debezium_outbox",
		"snapshot.mode", "configuration_based", // of which each part is off: no_data would begin at the log's end
		"snapshot.mode.configuration.based.snapshot.schema", "false",
		"snapshot.mode.configuration.based.snapshot.data", "false",
		"snapshot.mode.configuration.based.start.stream", "true",
		"tombstones.on.delete", "false",
		"poll.interval.ms", "5",
		"max.batch.size", "4096",
		"max.queue.size", "16384",
		"transforms", "outbox",
		"transforms.outbox.type", "io.debezium.transforms.outbox.EventRouter",
		"transforms.outbox.route.topic.replacement", "${routedByValue}", // aggregatetype
		"transforms.outbox.table.fields.additional.placement", strings.Join(headers, ","),
	), nil
}

func properties(pairs ...string) string {
	var b strings.Builder
	for pair := range slices.Chunk(pairs, 2) {
		b.WriteString(pair[0] + "=" + pair[1] + "\n")
	}
	return b.String()
}

// debeziumHeaders are those of an event but for its id.
func debeziumHeaders() []string {
	var keys []string
	for _, h := range (event{}).headers() {
		if h.Key != "ce_id" {
			keys = append(keys, h.Key)
		}
	}
	return keys
}

// column of a header. type is one that the router expects.
func column(header string) string {
	if header == "ce_type" {
		return "type"
	}
	return strings.ReplaceAll(header, "-", "_")
}

func debeziumColumns() []string {
	columns := []string{"id", "aggregatetype", "aggregateid", "payload"}
	for _, h := range debeziumHeaders() {
		columns = append(columns, column(h))
	}
	return columns
}

func prepareDebezium(ctx context.Context, p *place) error {
	if _, err := connectLibs(ctx); err != nil {
		return err
	}
	_, err := p.owner.Exec(ctx, `
		CREATE TABLE debezium_outbox (`+strings.Join(debeziumColumns(), ` text NOT NULL, `)+` text NOT NULL, PRIMARY KEY (id));
		GRANT INSERT ON debezium_outbox TO PUBLIC;
		CREATE PUBLICATION debezium FOR TABLE debezium_outbox WITH (publish = 'insert')`)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, p.stack.postgres.URL("postgres", p.topic))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// Here, so that the backlog is in it.
	_, err = conn.Exec(ctx, `SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, p.topic)
	return err
}

func appendDebezium(ctx context.Context, p *place, tx pgx.Tx, events []event) error {
	columns := debeziumColumns()
	values := make([][]string, len(columns))
	for _, e := range events {
		row := []string{e.id(), p.topic, e.key, string(e.payload)}
		for _, h := range e.headers() {
			if h.Key != "ce_id" {
				row = append(row, h.Value)
			}
		}
		for i, v := range row {
			values[i] = append(values[i], v)
		}
	}
	places, args := make([]string, len(columns)), make([]any, len(columns))
	for i := range columns {
		places[i], args[i] = fmt.Sprintf("$%d::text[]", i+1), values[i]
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO debezium_outbox (`+strings.Join(columns, ", ")+`)
		SELECT * FROM unnest(`+strings.Join(places, ", ")+`)`, args...)
	return err
}

// relayDebezium is at work when the slot is read.
func relayDebezium(ctx context.Context, p *place, ready func()) error {
	libs, err := connectLibs(ctx)
	if err != nil {
		return err
	}
	dir := filepath.Join(p.stack.dir, p.topic) // a second run goes on with the offsets of the first
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	source, err := connector(p)
	if err != nil {
		return err
	}
	worker, named := filepath.Join(dir, "worker.properties"), filepath.Join(dir, "connector.properties")
	err = errors.Join(os.WriteFile(worker, []byte(connectWorker(p, dir)), 0o600), os.WriteFile(named, []byte(source), 0o600))
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log")) //nolint:gosec // in the stack's directory
	if err != nil {
		return err
	}
	defer log.Close()
	if err := slotIs(ctx, p, false); err != nil {
		return err
	}
	c := exec.CommandContext(ctx, "java", connectHeap, "-Dlog4j2.level=WARN", "-cp", filepath.Join(libs, "*"), //nolint:gosec // all of it is ours
		"org.apache.kafka.connect.cli.ConnectStandalone", worker, named)
	c.Stdout, c.Stderr = log, log
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 30 * time.Second
	if err := c.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	reading := make(chan error, 1)
	starting, stop := context.WithTimeout(ctx, 90*time.Second)
	defer stop()
	go func() { reading <- slotIs(starting, p, true) }()
	for {
		select {
		case err := <-reading:
			if err == nil {
				ready()
			} else if ctx.Err() == nil {
				return errors.Join(fmt.Errorf("connect does not read the slot: %w: %s", err, said(log.Name())), c.Cancel(), <-ended)
			}
			reading = nil
		case err := <-ended:
			if ctx.Err() != nil {
				return nil // what a signal ended
			}
			return fmt.Errorf("connect ended: %w: %s", err, said(log.Name()))
		}
	}
}

// slotIs waits until somebody reads the slot, or nobody.
func slotIs(ctx context.Context, p *place, read bool) error {
	for {
		var active bool
		err := p.owner.QueryRow(ctx, `SELECT active FROM pg_replication_slots WHERE slot_name = $1`, p.topic).Scan(&active)
		if err != nil || active == read {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// said is the end of a log.
func said(path string) string {
	content, err := os.ReadFile(path) //nolint:gosec // one that was just written
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-3000):])
}
