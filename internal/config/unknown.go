package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// renamed are variables of earlier versions, without the prefix, and what took their place.
var renamed = map[string]string{
	"STREAMS_PER_KEY": "PAYMENTS_STREAMS_PER_MERCHANT",
	"WAITS_PER_KEY":   "PAYMENTS_WAITS_PER_MERCHANT",
}

// beside the loaders' variables: what single subcommands, docker compose and the demo's clients read.
var beside = []string{
	"PAYMENTS_DATA_DIR", "PAYMENTS_SECRETS_DIR", "PAYMENTS_POSTGRES_BIN",
	"PAYMENTS_URL", "PAYMENTS_ADMIN_URL", "PAYMENTS_SIMULATOR_URL",
	"PAYMENTS_API_KEY", "PAYMENTS_API_KEY_2", "PAYMENTS_OPERATOR_KEY", "PAYMENTS_OPERATOR_KEY_2",
	"PAYMENTS_OWNER_PASSWORD", "PAYMENTS_DB_PASSWORD",
}

// foreign are names, without the prefix, that are not ours: those that Kubernetes sets for a
// Service called payments, docker compose's ports, and the tests' switches.
var foreign = regexp.MustCompile(`^(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?|ADMIN_PORT|TEST_.+|CHAOS_.+|AUDIT_.+|DRILLS|CRASH_MATRIX|KAFKA_HOME|KAFKA_PORT)$`)

// Known lists the variables that some subcommand reads, in order.
func Known() []string {
	names := map[string]bool{}
	ask := func(name string) (string, bool) {
		names[name] = true
		return "", false
	}
	for _, load := range []func(){
		func() { _, _ = Load(ask) }, func() { _, _ = LoadMigrate(ask) }, func() { _, _ = LoadReplay(ask) }, func() { _, _ = LoadOwner(ask) },
		func() { _, _ = LoadSimulator(ask) }, func() { _, _ = LoadAudit(ask, true) }, func() { _, _ = LoadBank(ask) },
	} {
		load()
	}
	for _, name := range beside {
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// Unknown is a sentence for each variable of the environment (os.Environ) that has our prefix
// and that nothing reads. It repeats no value.
func Unknown(environ []string) (warnings []string) {
	known := Known()
	for _, variable := range slices.Sorted(slices.Values(environ)) {
		set, _, _ := strings.Cut(variable, "=")
		name := strings.TrimSuffix(set, FileSuffix)
		bare, ours := strings.CutPrefix(name, prefix)
		if !ours || bare == "" || slices.Contains(known, name) || foreign.MatchString(bare) {
			continue
		}
		if now := renamed[bare]; now != "" {
			warnings = append(warnings, fmt.Sprintf("%s is not read any more: it is %s now", set, now))
			continue
		}
		near := slices.MinFunc(known, func(a, b string) int { return distance(name, a) - distance(name, b) })
		warnings = append(warnings, fmt.Sprintf("%s is not a known variable and has no effect; the nearest known one is %s", set, near))
	}
	return warnings
}

// distance is how many letters have to be put in, taken out or changed (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			before, row[j+1] = above, min(before+cost, above+1, row[j]+1)
		}
	}
	return row[len(b)]
}
