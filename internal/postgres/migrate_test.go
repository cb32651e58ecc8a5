package postgres

import (
	"testing"

	"payments/internal/devstack/devtest"
)

// A migration that was merged after one with a higher number is applied all the same.
func TestAMigrationThatCameLaterIsApplied(t *testing.T) {
	d := devtest.Database(t)
	owner, err := Open(t.Context(), d.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	if _, err := owner.Exec(t.Context(), `
		ALTER TABLE payment_timeline DROP COLUMN fed;
		DROP TABLE feed_events, feed_heads;
		DELETE FROM goose_db_version WHERE version_id = 15`); err != nil {
		t.Fatal(err)
	}
	if err := Migrate(t.Context(), d.OwnerURL, d.URL); err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Exec(t.Context(), `SELECT FROM feed_heads`); err != nil {
		t.Error(err)
	}
}
