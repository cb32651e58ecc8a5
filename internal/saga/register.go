package saga

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// heldFor is how long a version counts as held after a worker has last said so.
const heldFor = 30 * time.Second

// ErrChanged means that a version of a definition is registered with other steps.
// Running sagas of that version would be driven by the wrong steps, so that nothing may
// begin or drive one: a changed definition needs a new version.
var ErrChanged = errors.New("a changed definition needs a new version")

// Register records which versions this worker holds. RunOnce drives nothing before one call
// has succeeded: a worker that could not reach the database at its start is held to the
// same rule. Error: ErrChanged.
func (w *Worker) Register(ctx context.Context) error {
	for _, d := range w.Definitions {
		var known []byte
		hash := d.Hash()
		err := w.pool.QueryRow(ctx, `
			INSERT INTO saga_definitions (name, version, hash) VALUES ($1, $2, $3)
			ON CONFLICT (name, version) DO UPDATE SET held_at = CASE saga_definitions.hash WHEN excluded.hash THEN now() ELSE saga_definitions.held_at END
			RETURNING hash`, d.Name, d.Version, hash[:]).Scan(&known)
		if err != nil {
			return fmt.Errorf("register saga %s: %w", d.Name, err)
		}
		if [sha256.Size]byte(known) != hash {
			return d.changed()
		}
	}
	w.registered.Store(true)
	return nil
}

func (d Definition) changed() error {
	return fmt.Errorf("saga %s version %d is registered with other steps: %w", d.Name, d.Version, ErrChanged)
}
