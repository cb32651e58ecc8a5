package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

// What runs with the owner's rights is for the service's role alone.
func TestNoFunctionOfTheOwnerIsForEverybody(t *testing.T) {
	db := devtest.Database(t)
	owner, err := postgres.Open(t.Context(), db.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	service, err := postgres.Open(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	var role string
	if err := service.QueryRow(t.Context(), `SELECT current_user`).Scan(&role); err != nil {
		t.Fatal(err)
	}
	type function struct {
		Name             string
		Public, Services bool
	}
	functions := func() (all []function) {
		t.Helper()
		rows, err := owner.Query(t.Context(), `
			SELECT oid::regprocedure::text, has_function_privilege('public', oid, 'EXECUTE'), has_function_privilege($1, oid, 'EXECUTE')
			FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace`, role)
		if err != nil {
			t.Fatal(err)
		}
		if all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[function]); err != nil {
			t.Fatal(err)
		}
		return all
	}
	all := functions()
	for _, f := range all {
		if f.Public || !f.Services {
			t.Errorf("%s: for everybody %t, for the service %t", f.Name, f.Public, f.Services)
		}
	}
	if len(all) < 5 {
		t.Errorf("%d functions", len(all))
	}
	// One that a later migration forgets.
	if _, err := owner.Exec(t.Context(), `CREATE FUNCTION forgotten() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1`); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Migrate(t.Context(), db.OwnerURL, db.URL); err != nil {
		t.Fatal(err)
	}
	for _, f := range functions() {
		if f.Public {
			t.Errorf("%s is for everybody", f.Name)
		}
	}
}
