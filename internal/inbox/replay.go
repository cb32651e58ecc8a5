package inbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"payments/internal/postgres"
)

// replayChunk messages are applied in one transaction: while it runs, the
// partition's consumer waits if it has a message of the same key.
const replayChunk = 200

// Replay is what became of a blocked key. Reason says why the first of the
// Remaining messages was refused again.
type Replay struct {
	ID        string
	Applied   int
	Released  bool
	Remaining int64
	Reason    string
}

// Replay applies the messages of a blocked key in order, and releases the key with
// the last of them: a message that arrives meanwhile waits behind them or comes
// after the release, and never in between. At a refusal it stops, what was
// applied stays applied, and the key stays blocked.
func (p *DeadLetters) Replay(ctx context.Context, id string) (Replay, error) {
	r := Replay{ID: id}
	var consumer string
	// The attempt is counted first, for the one who looks for what kills the process.
	err := p.pool.QueryRow(ctx, `UPDATE inbox_parked_keys SET replays = replays + 1 WHERE id = $1 RETURNING consumer`, id).Scan(&consumer)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, ErrNotBlocked
	}
	if err != nil {
		return r, fmt.Errorf("count the replay of %s: %w", id, err)
	}
	in := p.inboxes[consumer]
	if in == nil {
		return r, notHere(consumer)
	}
	for !r.Released && r.Reason == "" {
		err := postgres.InTx(ctx, in.pool, func(tx pgx.Tx) error { return in.replayAndFinish(ctx, tx, &r) })
		if errors.Is(err, ErrNotBlocked) && r.Applied > 0 { // somebody else has finished it: nothing of it waits any more
			r.Released, r.Remaining = true, 0
			break
		}
		if err != nil {
			return r, fmt.Errorf("replay %s: %w", id, err)
		}
	}
	in.Log.InfoContext(ctx, "blocked key replayed", "blocked", id, "applied", r.Applied, "released", r.Released, "refused", r.Reason)
	return r, nil
}

func notHere(consumer string) error {
	return fmt.Errorf("this process cannot apply the dead letters of %s", consumer)
}

func (in *Inbox) replayAndFinish(ctx context.Context, tx pgx.Tx, r *Replay) error {
	applied, err := in.replay(ctx, tx, r)
	if err != nil {
		return err
	}
	return in.finish(ctx, tx, applied)
}

// CloseGaps tries the keys again that wait for a missing message, the newest hundred of
// them. What is missing closes a gap when it comes; only when both come at the same time, by two
// partitions, neither sees the other. A gap that stays is no error.
func (in *Inbox) CloseGaps(ctx context.Context) (closed int, err error) {
	// By the index inbox_parked_keys_oldest.
	rows, err := in.pool.Query(ctx, `
		SELECT id FROM inbox_parked_keys WHERE consumer = $1 AND fingerprint = $2 ORDER BY parked_at DESC LIMIT 100`, in.consumer, fingerprintGap)
	if err != nil {
		return 0, fmt.Errorf("look for gaps: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, fmt.Errorf("look for gaps: %w", err)
	}
	for _, id := range ids {
		r := Replay{ID: id}
		err := postgres.InTx(ctx, in.pool, func(tx pgx.Tx) error { return in.replayAndFinish(ctx, tx, &r) })
		if err != nil && !errors.Is(err, ErrNotBlocked) {
			return closed, fmt.Errorf("close the gap of %s: %w", id, err)
		}
		if r.Released {
			closed++
			in.Log.InfoContext(ctx, "gap closed, its key goes on", "blocked", id, "applied", r.Applied)
		}
	}
	return closed, nil
}

// replay applies the next chunk, and says in r what stands when tx is committed.
func (in *Inbox) replay(ctx context.Context, tx pgx.Tx, r *Replay) (applied []Message, err error) {
	key, err := lockKey(ctx, tx, r.ID)
	if err != nil {
		return nil, err
	}
	letters, err := readDeadLetters(ctx, tx, r.ID, replayChunk)
	if err != nil {
		return nil, err
	}
	a := &batchApply{in: in, tx: tx, replay: true, parts: make([]int, len(letters)), held: map[string]bool{}}
	for _, m := range letters {
		a.batch = append(a.batch, Message{
			Topic: key.Topic, Partition: m.Partition, Offset: m.Offset, Key: key.Key, Value: m.Value, Headers: m.Headers,
		})
	}
	if a.keptFrom, err = lockKept(ctx, tx); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{a.note, a.apply, a.leave} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	taken := len(letters)
	stop, stopped := a.stops[0]
	if stopped {
		taken = stop.message
	}
	remaining, err := removeDeadLetters(ctx, tx, r.ID, letters[:taken])
	if err != nil {
		return nil, err
	}
	next := Replay{ID: r.ID, Applied: r.Applied + len(a.applied), Released: remaining == 0, Remaining: remaining}
	if stopped {
		next.Reason = reasonOf(stop.reason)
		if _, err := tx.Exec(ctx, `UPDATE inbox_parked SET reason = $3 WHERE parked_key = $1 AND arrival = $2`,
			r.ID, letters[taken].arrival, next.Reason); err != nil {
			return nil, fmt.Errorf("write the refusal down: %w", err)
		}
		if _, err := tx.Exec(ctx, `UPDATE inbox_parked_keys SET fingerprint = $2 WHERE id = $1`, r.ID, fingerprintOf(stop.reason)); err != nil {
			return nil, fmt.Errorf("write the refusal down: %w", err)
		}
	}
	*r = next
	return a.applied, nil
}

func lockKey(ctx context.Context, tx pgx.Tx, id string) (k BlockedKey, err error) {
	err = tx.QueryRow(ctx, `SELECT consumer, topic, key FROM inbox_parked_keys WHERE id = $1 FOR UPDATE`, id).
		Scan(&k.Consumer, &k.Topic, &k.Key)
	if errors.Is(err, pgx.ErrNoRows) {
		return k, ErrNotBlocked
	}
	if err != nil {
		return k, fmt.Errorf("lock blocked key: %w", err)
	}
	return k, nil
}

// removeDeadLetters removes messages, and with the last of them the key, whose row is locked.
func removeDeadLetters(ctx context.Context, tx pgx.Tx, id string, gone []DeadLetter) (remaining int64, err error) {
	arrivals := make([]int64, len(gone))
	for i, m := range gone {
		arrivals[i] = m.arrival
	}
	if _, err := tx.Exec(ctx, `DELETE FROM inbox_parked WHERE parked_key = $1 AND arrival = ANY ($2)`, id, arrivals); err != nil {
		return 0, fmt.Errorf("remove dead letters: %w", err)
	}
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM inbox_parked WHERE parked_key = $1`, id).Scan(&remaining); err != nil {
		return 0, fmt.Errorf("count dead letters: %w", err)
	}
	if remaining > 0 {
		return remaining, nil
	}
	if _, err := tx.Exec(ctx, `DELETE FROM inbox_parked_keys WHERE id = $1`, id); err != nil {
		return 0, fmt.Errorf("release blocked key: %w", err)
	}
	return 0, nil
}

// ReplayAll replays every key that the filter matches, the oldest first.
// A key that is refused again does not hold up the others, nor does one of a
// consumer that this process is not.
func (p *DeadLetters) ReplayAll(ctx context.Context, f BlockedFilter) (all []Replay, err error) {
	for {
		page, err := p.List(ctx, f)
		if err != nil {
			return all, err
		}
		for _, k := range page.Keys {
			if p.inboxes[k.Consumer] == nil {
				all = append(all, Replay{ID: k.ID, Remaining: k.Messages, Reason: notHere(k.Consumer).Error()})
				continue
			}
			r, err := p.Replay(ctx, k.ID)
			if errors.Is(err, ErrNotBlocked) {
				continue
			}
			if err != nil {
				return all, err
			}
			all = append(all, r)
		}
		if page.Next == "" {
			return all, nil
		}
		f.After = page.Next
	}
}
