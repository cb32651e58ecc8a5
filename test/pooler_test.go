package test

import (
	"maps"
	"testing"

	"payments/internal/devstack/devtest"
)

// The whole service behind PgBouncer in session mode, as it is installed.
func TestTheServiceWorksBehindPgBouncer(t *testing.T) {
	t.Parallel()
	direct := devtest.Database(t)
	pooled := devtest.PgBouncer(t, direct, "session")
	w := newWorld(t, parts{database: direct})
	s := w.serve(map[string]string{"PAYMENTS_DATABASE_URL": pooled.URL})
	request := order("A-🦊", "pm_card_visa")
	if p := w.paid(s, "pooled", request); p.Status != "succeeded" {
		t.Errorf("%+v", p)
	}
	w.audited()
	// The same pooler in another mode is refused, by each subcommand in one sentence.
	for _, mode := range []string{"transaction", "statement"} {
		pooled := devtest.PgBouncer(t, direct, mode)
		vars := maps.Clone(w.vars)
		vars["PAYMENTS_DATABASE_URL"], vars["PAYMENTS_ADDR"], vars["PAYMENTS_ADMIN_ADDR"] = pooled.URL, w.address(), w.address()
		const want = "set PgBouncer's pool_mode to session"
		w.fails("PAYMENTS_DATABASE_URL", want, vars, "serve")
		w.fails("PAYMENTS_DATABASE_URL", want, vars, "migrate")
		vars["PAYMENTS_DATABASE_URL"], vars["PAYMENTS_MIGRATE_DATABASE_URL"] = direct.URL, pooled.OwnerURL
		w.fails("PAYMENTS_MIGRATE_DATABASE_URL", want, vars, "migrate")
	}
}
