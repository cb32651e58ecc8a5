package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// sessionSettings are those of every session, whatever the role or the database has.
func sessionSettings() map[string]string {
	return map[string]string{
		"application_name":                    "payments",
		"client_encoding":                     "UTF8",
		"timezone":                            "UTC",
		"default_transaction_isolation":       "read committed",
		"synchronous_commit":                  "on",
		"lock_timeout":                        "5s",
		"statement_timeout":                   "15s",
		"idle_in_transaction_session_timeout": "5s",
		"jit":                                 "off", // compiling takes ten times as long as a page does
		tenantSetting:                         everybody,
	}
}

// settleSession makes the settings in c.RuntimeParams by a statement, once the session has
// begun, instead of as parameters of its start: PgBouncer refuses such parameters, or
// ignores them if it is told to (ignore_startup_parameters). A session without its settings
// would see no tenant's row and commit as the server likes. It is called before each
// connection is made, since a pool's configuration may be copied and changed.
func settleSession(_ context.Context, c *pgx.ConnConfig) error {
	settings := maps.Clone(c.RuntimeParams)
	c.RuntimeParams = map[string]string{}
	if options, ok := settings["options"]; ok { // is a parameter of the start alone
		c.RuntimeParams["options"] = options
		delete(settings, "options")
	}
	if len(settings) == 0 {
		return nil
	}
	before := c.AfterConnect
	c.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if before != nil {
			if err := before(ctx, conn); err != nil {
				return err
			}
		}
		calls := make([]string, 0, len(settings))
		for _, name := range slices.Sorted(maps.Keys(settings)) {
			calls = append(calls, fmt.Sprintf("set_config(%s, %s, false)", literal(name), literal(settings[name])))
		}
		if _, err := conn.Exec(ctx, "SELECT "+strings.Join(calls, ", ")).ReadAll(); err != nil {
			return fmt.Errorf("make the session's settings: %w", err)
		}
		return nil
	}
	return nil
}

// literal is right whatever standard_conforming_strings is.
func literal(s string) string {
	return ` E'` + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + `'`
}
