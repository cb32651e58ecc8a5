package readmodel

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// consumed is what a backup of the read model's database holds, and what comes back
// with it: the effects and how far they stand.
var consumed = []string{"payment_view", "payment_timeline", "refund_view", "payment_term", "inbox_messages", "inbox_offsets"}

// backup copies the tables; the function puts them back.
func (p *pipeline) backup() (restore func()) {
	p.t.Helper()
	rows := map[string][]string{}
	for _, table := range consumed {
		var found []string
		if err := p.pool.QueryRow(p.t.Context(), `SELECT coalesce(array_agg(to_jsonb(t)::text), '{}') FROM `+table+` t`).Scan(&found); err != nil {
			p.t.Fatal(err)
		}
		rows[table] = found
	}
	return func() {
		p.t.Helper()
		if err := pgx.BeginFunc(p.t.Context(), p.pool, func(tx pgx.Tx) error {
			for _, table := range consumed {
				if _, err := tx.Exec(p.t.Context(), `DELETE FROM `+table); err != nil {
					return err
				}
				if _, err := tx.Exec(p.t.Context(), `
					INSERT INTO `+table+` SELECT (jsonb_populate_record(NULL::`+table+`, line::jsonb)).* FROM unnest($1::text[]) AS line`, rows[table]); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			p.t.Fatal(err)
		}
	}
}

// The naive consumer goes on where the group has committed, which is further than a
// database that was restored from a backup, and never sees what lies between.
func TestADatabaseOfABackupIsReadUpAgain(t *testing.T) {
	for what, fill := range map[string]int{"of after some events": 20, "of before any event": 0} {
		t.Run(what, func(t *testing.T) {
			p := newPipeline(t)
			stop := p.consumer()
			if fill > 0 {
				p.succeeded(fill)
			}
			p.settles(fill)
			stop()
			restore := p.backup()
			stop = p.consumer()
			p.succeeded(20)
			p.settles(fill + 20)
			stop()
			before := p.contents()
			restore()
			p.settles(fill)
			p.consumer()
			p.succeeded(1)
			p.settles(fill + 21)
			same(t, "what was there before the restore", withOnly(p.contents(), before), before)
			same(t, "dead letters", p.deadLetters(), []string{})
		})
	}
}

// A database that has lost commits is noticed by a consumer that has nothing to do: the
// events that it applied before come from the log again.
func TestAnIdleConsumerReadsUpARestoredDatabase(t *testing.T) {
	p := newPipeline(t)
	p.consumer()
	p.succeeded(5)
	p.settles(5)
	restore := p.backup()
	p.succeeded(5)
	p.settles(10)
	before := p.contents()
	restore()
	p.settles(10)
	same(t, "what was there before the restore", withOnly(p.contents(), before), before)
	same(t, "dead letters", p.deadLetters(), []string{})
}
