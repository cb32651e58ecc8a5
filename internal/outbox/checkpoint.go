package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// checkpoint writes down how far the shards have come: at once if forced, else once
// in a while for a shard that has published, and once a lease for one that has only seen
// time pass, so that retention can go on. A shard whose epoch is not the newest any more is refused, and lost.
func (r *Relay) checkpoint(ctx context.Context, force bool) error {
	now := r.Now()
	if !force && now.Sub(r.checkpointed) < r.Checkpoint {
		return nil
	}
	var ids []int32
	var epochs, positions, ends []int64
	var done []string
	var pages []*string
	for _, s := range r.shards {
		if s.done == s.saved || !force && !s.dirty && now.Sub(s.since) < r.Lease {
			continue
		}
		ids, epochs, done = append(ids, s.id), append(epochs, s.epoch), append(done, s.done.done)
		var page *string
		position := s.done.from // in the column that is free without a page
		if s.done.page != "" {
			page, position = &s.done.page, s.done.position
		}
		pages, positions, ends = append(pages, page), append(positions, position), append(ends, s.done.end)
	}
	if len(ids) == 0 {
		return nil
	}
	r.checkpointed = now
	// What a crash of the server takes away of these is sent again; to wait for the
	// disk would buy nothing. The rest of the log that holds it is durable no later.
	rows, err := r.conn.Query(ctx, `
		INSERT INTO outbox_checkpoints (shard, epoch, done, page_snapshot, page_position, page_end, system_identifier, timeline)
		SELECT c.shard, c.epoch, c.done::pg_snapshot, c.page::pg_snapshot, c.position, c.page_end, $8, $9
		FROM set_config('synchronous_commit', 'off', true),
			unnest($2::int[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::bigint[])
				AS c (shard, epoch, done, page, position, page_end)
			JOIN outbox_shards s ON s.shard = c.shard AND s.epoch = c.epoch AND s.owner = $1
		RETURNING shard`, r.Owner, ids, epochs, done, pages, positions, ends, r.server.SystemIdentifier, r.server.Timeline)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	written := map[int32]bool{}
	var id int32
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error {
		written[id] = true
		return nil
	}); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	for _, id := range ids {
		s := r.shards[id]
		if !written[id] {
			r.metrics.fenced.Inc()
			r.lose(ctx, s, "its checkpoint was refused")
			continue
		}
		s.saved, s.dirty, s.since = s.done, false, now
	}
	return nil
}
