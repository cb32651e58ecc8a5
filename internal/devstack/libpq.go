package devstack

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// libpq are the variables of Postgres's clients (its documentation, "Environment Variables"), and
// PGDATA and the like of its server.
var libpq = regexp.MustCompile(`^PG[A-Z]+$`)

// WithoutLibpq is an environment (os.Environ) without them.
func WithoutLibpq(environ []string) (kept []string) {
	for _, variable := range environ {
		if name, _, _ := strings.Cut(variable, "="); !libpq.MatchString(name) {
			kept = append(kept, variable)
		}
	}
	return kept
}

func forgetLibpq() error {
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if !libpq.MatchString(name) {
			continue
		}
		if err := os.Unsetenv(name); err != nil {
			return fmt.Errorf("take %s out of the environment: %w", name, err)
		}
	}
	return nil
}
