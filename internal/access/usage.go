package access

import (
	"context"
	"fmt"
	"time"
)

// use of a key that is not written yet.
type use struct {
	at          time.Time
	stored, mac []byte // mac is set where stored is of an older pepper
}

// maxUsed bounds what is noted between two turns; the uses of further keys are
// noted after the next.
const maxUsed = 100_000

// note keeps the use of a verified key for RunOnce, so that no request waits for it.
func (a *Authenticator) note(c Credential, stored []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	u, known := a.used[c.KeyID]
	if !known && len(a.used) >= maxUsed {
		return
	}
	u.at = time.Now()
	if u.mac == nil && !a.pepper.Current(stored) {
		u.stored, u.mac = stored, a.pepper.MAC([]byte(c.maced))
	}
	a.used[c.KeyID] = u
}

// RunOnce writes when keys were used, each key at most once a minute in all
// processes, and gives a key whose MAC is of an older pepper one of the primary.
// What could not be written is written by a later turn.
func (a *Authenticator) RunOnce(ctx context.Context) (more bool, err error) {
	a.mu.Lock()
	used := a.used
	a.used = map[string]use{}
	a.mu.Unlock()
	if len(used) == 0 {
		return false, nil
	}
	ids, ages, stored, macs := make([]string, 0, len(used)), make([]float64, 0, len(used)), make([][]byte, 0, len(used)), make([][]byte, 0, len(used))
	for id, u := range used {
		ids, ages = append(ids, id), append(ages, time.Since(u.at).Seconds())
		stored, macs = append(stored, u.stored), append(macs, u.mac)
	}
	// A MAC that is no longer what was verified stays. In the order of the ids, so that two processes cannot deadlock.
	_, err = a.pool.Exec(ctx, `
		WITH used AS (
			SELECT u.id, now() - u.age * interval '1 second' AS at, CASE WHEN k.mac = u.stored THEN u.mac END AS mac
			FROM unnest($1::text[], $2::float8[], $3::bytea[], $4::bytea[]) AS u (id, age, stored, mac)
			JOIN api_keys k ON k.id = u.id
			ORDER BY k.id FOR NO KEY UPDATE OF k)
		UPDATE api_keys k SET last_used_at = greatest(k.last_used_at, u.at), mac = coalesce(u.mac, k.mac)
		FROM used u WHERE k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at < u.at - interval '1 minute' OR u.mac IS NOT NULL)`,
		ids, ages, stored, macs)
	if err != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		for id, u := range used {
			if _, again := a.used[id]; !again {
				a.used[id] = u
			}
		}
		return false, fmt.Errorf("write the use of api keys: %w", err)
	}
	return false, nil
}
