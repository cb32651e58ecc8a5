package outbox

import "context"

// Heartbeat makes the next RunOnce look at the other relays, however recently it did.
func (r *Relay) Heartbeat() { r.heartbeatAt = r.heartbeatAt.Add(-r.Lease) }

// Idle waits until nothing is being published any more.
func (r *Relay) Idle(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.await(ctx, false)
}

// Owned are the shards that the relay believes to own.
func (r *Relay) Owned() (ids []int32) {
	for id := range r.shards {
		ids = append(ids, id)
	}
	return ids
}

// Hash is the shard's, before the remainder is taken.
func Hash(key string) int32 { return hash(key) }

// Flush writes what there is to write down.
func (r *Relay) Flush(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.checkpoint(ctx, true)
}

// Disconnect cuts the relay's connection.
func (r *Relay) Disconnect() { _ = r.conn.PgConn().Conn().Close() }

// Busy tells whether anything is being published.
func (r *Relay) Busy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.busy(0)
}

// Kill lets go of the connection and says nothing to anybody.
func (r *Relay) Kill(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leave(ctx)
}

// Low is where the first shard's next window begins.
func (r *Relay) Low() int64 { return r.low(r.shards[0].done.done) }
