package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Record is a message as the broker's log has it.
type Record struct {
	ID, Key   string
	Sequence  int64 // 0 if it has none
	Type      string
	Partition int
	Offset    int64
}

// Tail reads the broker's log backwards: of each partition it hands over a page of records
// after another, the newest page first, until visit says that it needs no more of the partition, or the
// log begins.
type Tail func(ctx context.Context, visit func([]Record) (more bool, err error)) error

// findLost notes the records whose messages this outbox does not have, and counts them. What
// is lost was committed last, and so it is published last: a page of which the outbox has all
// ends the search in its partition.
func findLost(ctx context.Context, db *pgx.Conn, here Server, tail Tail) (found int64, err error) {
	err = tail(ctx, func(page []Record) (more bool, err error) {
		var ids, keys, types []string
		var sequences, offsets []int64
		var partitions []int32
		for _, m := range page {
			if m.ID == "" || m.Key == "" || m.Sequence < 1 || !text(m.ID) || !text(m.Key) || !text(m.Type) {
				continue // no outbox has written it
			}
			ids, keys, types = append(ids, m.ID), append(keys, m.Key), append(types, m.Type)
			sequences, offsets = append(sequences, m.Sequence), append(offsets, m.Offset)
			partitions = append(partitions, int32(m.Partition)) //nolint:gosec // Kafka's partitions are int32
		}
		// By the partitions' own index …_one_event_a_sequence. A message that retention has dropped is not lost.
		var lost int64
		err = db.QueryRow(ctx, `
			WITH lost AS (
				SELECT DISTINCT ON (id) * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::int[], $6::bigint[])
					AS r (id, key, sequence, type, log_partition, log_offset)
				WHERE NOT EXISTS (SELECT FROM outbox o WHERE o.key = r.key AND o.sequence = r.sequence AND o.id = r.id)
					AND NOT EXISTS (SELECT FROM outbox_dropped d WHERE d.key = r.key AND d.sequence >= r.sequence)
				ORDER BY id, log_offset
			), noted AS (
				INSERT INTO outbox_lost (event_id, key, sequence, type, log_partition, log_offset, timeline)
				SELECT id, key, sequence, type, log_partition, log_offset, $7 FROM lost
				ON CONFLICT (event_id) DO NOTHING
			)
			SELECT count(*) FROM lost`, ids, keys, sequences, types, partitions, offsets, here.Timeline).Scan(&lost)
		if err != nil {
			return false, fmt.Errorf("compare %d records with the outbox: %w", len(page), err)
		}
		found += lost
		return lost > 0 || len(ids) == 0, nil
	})
	return found, err
}

// Lost is a message that was published and whose commit the database has lost.
type Lost struct {
	Record
	Timeline int32 // on which it was missed
	FoundAt  time.Time
}

// ListLost are those that nobody has settled, in the order in which they were published in each partition.
func ListLost(ctx context.Context, pool *pgxpool.Pool) ([]Lost, error) {
	rows, err := pool.Query(ctx, `
		SELECT event_id, key, sequence, type, log_partition, log_offset, timeline, found_at FROM outbox_lost
		WHERE settled_at IS NULL ORDER BY log_partition, log_offset`)
	if err != nil {
		return nil, fmt.Errorf("list lost messages: %w", err)
	}
	lost, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Lost, err error) {
		return l, row.Scan(&l.ID, &l.Key, &l.Sequence, &l.Type, &l.Partition, &l.Offset, &l.Timeline, &l.FoundAt)
	})
	if err != nil {
		return nil, fmt.Errorf("list lost messages: %w", err)
	}
	return lost, nil
}

// SettleLost says of all of them that a person has dealt with what they told.
func SettleLost(ctx context.Context, pool *pgxpool.Pool) (settled int64, err error) {
	tag, err := pool.Exec(ctx, `UPDATE outbox_lost SET settled_at = clock_timestamp() WHERE settled_at IS NULL`)
	if err != nil {
		return 0, fmt.Errorf("settle lost messages: %w", err)
	}
	return tag.RowsAffected(), nil
}
