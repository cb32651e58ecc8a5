package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// firstSnapshot is a cursor that has seen nothing: no transaction is older than xid 3.
const firstSnapshot = "1:1:"

// forget bounds how long a relay that ended without a word stands in outbox_relays.
const forget = time.Minute

// join takes a connection for as long as cursors are held in memory. A crash of the
// server takes every connection with it, and gives out anew the transaction ids that
// had written nothing: a cursor in memory would take those for published. What is in the
// checkpoints is older than the crash, and names none of them. For the
// same reason a pooler between must keep the session.
func (r *Relay) join(ctx context.Context) error {
	pooled, err := r.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect the relay: %w", err)
	}
	conn := pooled.Hijack() // its settings are not for others
	r.conn, r.heartbeatAt, r.last, r.from = conn, time.Time{}, 0, 0
	// A partition that was empty when the plan was made is soon no longer. Small tables
	// are scanned anyway, at a cost that is taken for a reason to compile.
	if _, err := conn.Exec(ctx, `SET enable_seqscan = off; SET jit = off`); err != nil {
		return fmt.Errorf("prepare the relay's connection: %w", err)
	}
	if err := r.recognize(ctx); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, `DELETE FROM outbox_relays WHERE lease_until < clock_timestamp() - $1::interval`, forget); err != nil {
		return fmt.Errorf("forget dead relays: %w", err)
	}
	var shards int
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM outbox_shards`).Scan(&shards); err != nil {
		return fmt.Errorf("count shards: %w", err)
	}
	r.shared = shards == r.Shards
	return nil
}

// divide gives the outbox another number of shards, each beginning where the one that
// is furthest behind has come to: what the others are ahead is sent again. It
// is refused while a relay lives.
func (r *Relay) divide(ctx context.Context) error {
	if err := r.forgetSilent(ctx, r.Now()); err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `LOCK TABLE outbox_shards IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return fmt.Errorf("lock the shards: %w", err)
		}
		var shards, alive int
		err := tx.QueryRow(ctx, `
			SELECT (SELECT count(*) FROM outbox_shards), count(*)
			FROM outbox_relays WHERE lease_until > clock_timestamp() AND owner <> $1`, r.Owner).Scan(&shards, &alive)
		switch {
		case err != nil:
			return fmt.Errorf("count shards: %w", err)
		case shards == r.Shards:
			return nil // another relay was faster
		case alive > 0:
			return fmt.Errorf("the outbox has %d shards in %d living relays and is to have %d: stop those first", shards, alive, r.Shards)
		}
		// Of two snapshots the earlier has the smaller bounds, or more that was running between the same.
		_, err = tx.Exec(ctx, `
			WITH first AS (
				SELECT coalesce(min(done::text), $2) AS done FROM (
					SELECT done FROM outbox_cursors
					ORDER BY pg_snapshot_xmin(done) NULLS FIRST, pg_snapshot_xmax(done), (SELECT count(*) FROM pg_snapshot_xip(done)) DESC
					LIMIT 1) c
			), next AS (
				SELECT coalesce(max(epoch), 0) + 1 AS epoch FROM outbox_shards
			), gone AS (
				DELETE FROM outbox_shards WHERE shard >= $1
			), divided AS (
				INSERT INTO outbox_shards (shard, epoch) SELECT shard, epoch FROM generate_series(0, $1 - 1) shard, next
				ON CONFLICT (shard) DO UPDATE SET owner = NULL, epoch = excluded.epoch
				RETURNING shard, epoch
			)
			INSERT INTO outbox_checkpoints (shard, epoch, done, system_identifier, timeline)
			SELECT shard, epoch, done::pg_snapshot, $3, $4 FROM divided, first`,
			r.Shards, firstSnapshot, r.server.SystemIdentifier, r.server.Timeline)
		if err != nil {
			return fmt.Errorf("divide the outbox into %d shards: %w", r.Shards, err)
		}
		return nil
	})
}

// shardRow is a row of outbox_shards.
type shardRow struct {
	shard      int32
	epoch      int64
	mine, free bool
}

// heartbeat renews the lease and moves towards this relay's fair share: the shards by
// the number of living relays, one more for those that joined first. Who has too
// many gives some back, who has too few takes free ones.
func (r *Relay) heartbeat(ctx context.Context) error {
	now := r.Now()
	if _, err := r.conn.Exec(ctx, `
		INSERT INTO outbox_relays (owner, lease_until) VALUES ($1, clock_timestamp() + $2::interval)
		ON CONFLICT (owner) DO UPDATE SET lease_until = excluded.lease_until`, r.Owner, r.Lease); err != nil {
		return fmt.Errorf("renew the lease of relay %s: %w", r.Owner, err)
	}
	r.heartbeatAt, r.leaseEnd = now, now.Add(r.Lease)
	// Whoever had drawn up to last had a transaction id by then. The one that has just been
	// committed is higher, and so is xmax of every snapshot from here on. (That xmax is behind the last
	// transaction that ended, not the last that began: without one in between it would prove nothing.)
	r.from = r.last
	if err := r.forgetSilent(ctx, now); err != nil {
		return err
	}
	if err := r.readClosed(ctx); err != nil {
		return err
	}
	rows, quota, err := r.readShards(ctx)
	if err != nil {
		return err
	}
	var have int
	var free, forgotten []shardRow // forgotten are those that this relay had before it lost its memory
	for _, st := range rows {
		s := r.shards[st.shard]
		switch {
		case s != nil && (!st.mine || st.epoch != s.epoch):
			r.lose(ctx, s, "taken over")
		case s != nil && have >= quota:
			s.releasing = true
		case s != nil:
			s.releasing = false
			have++
		case st.mine:
			forgotten = append(forgotten, st)
		case st.free:
			free = append(free, st)
		}
	}
	room := max(quota-have, 0)
	again := min(room, len(forgotten))
	if err := r.giveBack(ctx, forgotten[again:]); err != nil {
		return err
	}
	wanted := append(forgotten[:again:again], free...)
	return r.claim(ctx, wanted[:min(room, len(wanted))])
}

// silence is a lease that has been the same since the relay first looked at it.
type silence struct {
	until string    // the lease's end by the database's clock, as text
	since time.Time // by Now
}

// forgetSilent ends the leases that were not renewed for twice as long as a lease lasts, by
// this relay's own clock. The database's clock ends them as well, but not when it was set
// back: then a dead relay's lease would last that much longer. A living relay renews twelve
// times in that time, and stops sending by its own clock when it cannot.
func (r *Relay) forgetSilent(ctx context.Context, now time.Time) error {
	rows, err := r.conn.Query(ctx, `SELECT owner, lease_until::text FROM outbox_relays WHERE owner <> $1 AND lease_until > clock_timestamp()`, r.Owner)
	if err != nil {
		return fmt.Errorf("look at the other relays: %w", err)
	}
	seen := map[string]silence{}
	var owner, until string
	if _, err := pgx.ForEachRow(rows, []any{&owner, &until}, func() error {
		if seen[owner] = r.silent[owner]; seen[owner].until != until {
			seen[owner] = silence{until, now}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("look at the other relays: %w", err)
	}
	r.silent = seen
	for owner, s := range seen {
		if now.Sub(s.since) <= 2*r.Lease {
			continue
		}
		// Not if it has renewed its lease meanwhile.
		tag, err := r.conn.Exec(ctx, `DELETE FROM outbox_relays WHERE owner = $1 AND lease_until::text = $2`, owner, s.until)
		if err != nil {
			return fmt.Errorf("end the lease of relay %s: %w", owner, err)
		}
		if tag.RowsAffected() == 1 {
			r.Log.WarnContext(ctx, "ended the lease of a silent relay: the database's clock was set back", "relay", owner, "lease_until", s.until)
		}
	}
	return nil
}

func (r *Relay) readShards(ctx context.Context) (all []shardRow, quota int, err error) {
	rows, err := r.conn.Query(ctx, `
		WITH alive AS MATERIALIZED (
			SELECT owner, row_number() OVER (ORDER BY joined_at, owner) - 1 AS place, count(*) OVER () AS relays
			FROM outbox_relays WHERE lease_until > clock_timestamp()
		)
		SELECT s.shard, s.epoch, coalesce(s.owner = $1, false), a.owner IS NULL,
			count(*) OVER () / me.relays + (me.place < count(*) OVER () % me.relays)::int
		FROM outbox_shards s JOIN alive me ON me.owner = $1 LEFT JOIN alive a ON a.owner = s.owner
		ORDER BY s.shard`, r.Owner)
	if err != nil {
		return nil, 0, fmt.Errorf("look at the shards: %w", err)
	}
	var s shardRow
	if _, err = pgx.ForEachRow(rows, []any{&s.shard, &s.epoch, &s.mine, &s.free, &quota}, func() error {
		all = append(all, s)
		return nil
	}); err != nil {
		return nil, 0, fmt.Errorf("look at the shards: %w", err)
	}
	return all, quota, nil
}

func (r *Relay) readClosed(ctx context.Context) error {
	rows, err := r.conn.Query(ctx, `
		SELECT closed_xid::text::bigint, high FROM outbox_partitions
		WHERE parent = 'outbox' AND closed_xid IS NOT NULL ORDER BY high DESC`)
	if err != nil {
		return fmt.Errorf("read the closed partitions: %w", err)
	}
	r.closed, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (p closedPartition, err error) {
		return p, row.Scan(&p.xid, &p.high)
	})
	if err != nil {
		return fmt.Errorf("read the closed partitions: %w", err)
	}
	return nil
}

// claim takes shards whose owner is gone, each under a new epoch, and goes on where
// their checkpoints say. It is no error that another was faster.
func (r *Relay) claim(ctx context.Context, wanted []shardRow) error {
	if len(wanted) == 0 {
		return nil
	}
	ids := make([]int32, len(wanted))
	for i, st := range wanted {
		ids[i] = st.shard
	}
	rows, err := r.conn.Query(ctx, `
		UPDATE outbox_shards s SET owner = $1, epoch = s.epoch + 1
		FROM (SELECT shard FROM outbox_shards WHERE shard = ANY ($2) ORDER BY shard FOR UPDATE SKIP LOCKED) f
		WHERE s.shard = f.shard AND (s.owner IS NULL OR s.owner = $1 OR NOT EXISTS (
			SELECT FROM outbox_relays r WHERE r.owner = s.owner AND r.lease_until > clock_timestamp()))
		RETURNING s.shard, s.epoch`, r.Owner, ids)
	if err != nil {
		return fmt.Errorf("claim shards: %w", err)
	}
	epochs := map[int32]int64{}
	var id int32
	var epoch int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &epoch}, func() error {
		epochs[id] = epoch
		return nil
	}); err != nil {
		return fmt.Errorf("claim shards: %w", err)
	}
	if len(epochs) == 0 {
		return nil
	}
	// A statement of its own: the last owner may have written a checkpoint until the claim was committed.
	rows, err = r.conn.Query(ctx, `
		SELECT shard, done::text, coalesce(page_snapshot::text, ''), page_position, page_end FROM outbox_cursors WHERE shard = ANY ($1)`, ids)
	if err != nil {
		return fmt.Errorf("read the claimed shards' checkpoints: %w", err)
	}
	var c cursor
	if _, err := pgx.ForEachRow(rows, []any{&id, &c.done, &c.page, &c.position, &c.end}, func() error {
		c.from = 0
		if c.page == "" {
			c.position, c.from = 0, c.position
		}
		if epoch, ok := epochs[id]; ok {
			r.shards[id] = newShard(id, epoch, c, r.Now())
			r.metrics.claims.Inc()
			r.Log.InfoContext(ctx, "shard claimed", "shard", id, "owner", r.Owner, "epoch", epoch)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("read the claimed shards' checkpoints: %w", err)
	}
	r.metrics.owned.Set(float64(len(r.shards)))
	return nil
}

func (r *Relay) lose(ctx context.Context, s *shard, why string) {
	delete(r.shards, s.id)
	r.metrics.owned.Set(float64(len(r.shards)))
	r.Log.InfoContext(ctx, "shard given up", "shard", s.id, "owner", r.Owner, "epoch", s.epoch, "why", why)
}

// giveBack frees the shards that are to be released and have nothing under way, and
// the forgotten ones: while this relay lives, no other could take them.
func (r *Relay) giveBack(ctx context.Context, forgotten []shardRow) error {
	var ids []int32
	var epochs []int64
	for _, st := range forgotten {
		ids, epochs = append(ids, st.shard), append(epochs, st.epoch)
	}
	for _, s := range r.shards {
		if s.releasing && s.outstanding == 0 {
			ids, epochs = append(ids, s.id), append(epochs, s.epoch)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if err := r.checkpoint(ctx, true); err != nil {
		return err
	}
	if _, err := r.conn.Exec(ctx, `
		UPDATE outbox_shards s SET owner = NULL FROM unnest($2::int[], $3::bigint[]) AS g (shard, epoch)
		WHERE s.shard = g.shard AND s.epoch = g.epoch AND s.owner = $1`, r.Owner, ids, epochs); err != nil {
		return fmt.Errorf("give shards back: %w", err)
	}
	for _, id := range ids {
		if s := r.shards[id]; s != nil { // else it was forgotten, or its checkpoint refused
			r.lose(ctx, s, "given back")
		}
	}
	return nil
}

// Release finishes what is under way, writes the cursors and gives the shards back,
// so that other relays can go on at once. After a turn that ended in an error, or
// with its context, the cursors are those of the last checkpoint. The relay may turn again later.
func (r *Relay) Release(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == nil {
		_, err := r.pool.Exec(ctx, `
			WITH gone AS (DELETE FROM outbox_relays WHERE owner = $1)
			UPDATE outbox_shards SET owner = NULL WHERE owner = $1`, r.Owner)
		if err != nil {
			return fmt.Errorf("end the lease of relay %s: %w", r.Owner, err)
		}
		return nil
	}
	defer r.leave(ctx)
	for _, s := range r.shards {
		s.releasing = true
	}
	for r.collect(ctx); r.busy(0); r.collect(ctx) {
		select {
		case <-r.outcomes.wake:
		case <-ctx.Done():
			return fmt.Errorf("give shards back: %w", ctx.Err())
		}
	}
	err := r.giveBack(ctx, nil)
	if _, derr := r.conn.Exec(ctx, `DELETE FROM outbox_relays WHERE owner = $1`, r.Owner); derr != nil {
		err = errors.Join(err, fmt.Errorf("end the lease of relay %s: %w", r.Owner, derr))
	}
	return err
}

// leave believes nothing any more that is in memory.
func (r *Relay) leave(ctx context.Context) {
	if r.conn != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = r.conn.Close(ctx) // it is given up, however it fares
		r.conn = nil
	}
	for _, s := range r.shards {
		r.lose(ctx, s, "relay leaves")
	}
}
