package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// unpublished is the cursor before the first turn: no transaction is older than
// xid 3, so that this snapshot sees no row.
const unpublished = "1:1:"

func (r *Relay) left() time.Duration { return r.leaseEnd.Sub(r.Now()) }

// acquire takes the lease if it has run out, and goes on where the last owner's
// checkpoint says. It is no error that another holds it.
func (r *Relay) acquire(ctx context.Context) error {
	if !r.row {
		if _, err := r.pool.Exec(ctx, `
			INSERT INTO outbox_relays (name, done) VALUES ($1, $2) ON CONFLICT DO NOTHING`,
			r.Name, unpublished); err != nil {
			return fmt.Errorf("create relay %s: %w", r.Name, err)
		}
		r.row = true
	}
	asked := r.Now()
	var c cursor
	err := r.pool.QueryRow(ctx, `
		UPDATE outbox_relays
		SET owner = $2, epoch = epoch + 1, lease_until = now() + $3, updated_at = now()
		WHERE name = $1 AND (lease_until < now() OR owner = $2)
		RETURNING epoch, done::text, page_snapshot::text, page_position`,
		r.Name, r.Owner, r.Lease).Scan(&r.epoch, &c.done, &c.page, &c.position)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("acquire relay %s: %w", r.Name, err)
	}
	r.leading, r.cursor, r.leaseEnd = true, c, asked.Add(r.Lease)
	r.leader.Set(1)
	r.Log.InfoContext(ctx, "relay leads", "relay", r.Name, "owner", r.Owner, "epoch", r.epoch)
	return nil
}

// checkpoint writes the cursor and renews the lease. After an error ownership is
// dropped, since it is not known what is written: the next turn asks again.
func (r *Relay) checkpoint(ctx context.Context) error {
	asked := r.Now()
	if err := r.write(ctx, r.Lease); err != nil {
		r.drop(ctx)
		return err
	}
	r.leaseEnd = asked.Add(r.Lease)
	return nil
}

// Release writes the cursor and gives the lease back, so that another relay can
// go on at once. A relay that does not lead has nothing to release.
func (r *Relay) Release(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.leading {
		return nil
	}
	err := r.write(ctx, -time.Second)
	r.drop(ctx)
	if errors.Is(err, ErrFenced) {
		return nil
	}
	return err
}

func (r *Relay) write(ctx context.Context, lease time.Duration) error {
	tag, err := r.pool.Exec(ctx, `
		UPDATE outbox_relays
		SET done = $4, page_snapshot = $5, page_position = $6, lease_until = now() + $7, updated_at = now()
		WHERE name = $1 AND owner = $2 AND epoch = $3`,
		r.Name, r.Owner, r.epoch, r.cursor.done, r.cursor.page, r.cursor.position, lease)
	if err != nil {
		return fmt.Errorf("checkpoint relay %s: %w", r.Name, err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("checkpoint relay %s at epoch %d: %w", r.Name, r.epoch, ErrFenced)
	}
	return nil
}

func (r *Relay) drop(ctx context.Context) {
	r.leading = false
	r.leader.Set(0)
	r.Log.InfoContext(ctx, "relay leads no more", "relay", r.Name, "owner", r.Owner, "epoch", r.epoch)
}
