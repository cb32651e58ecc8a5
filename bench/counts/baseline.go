package counts

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
)

// metrics of a stage, in the order of the table, each with how far a count may be above the baseline.
var metrics = []struct {
	name string
	// A share of the baseline and a constant, whichever is more.
	share, constant float64
}{
	{"statements", 0.05, 0.6},
	{"commits", 0.05, 0.5},
	{"inserted", 0.02, 0.4},
	{"updated", 0.03, 0.5},
	{"deleted", 0.03, 0.4},
	{"wal_bytes", 0.05, 200},
	{"allocations", 0.15, 300},
}

// Stage is the counts of one payment, by metric.
type Stage map[string]float64

// Baseline is the stages by name.
type Baseline map[string]Stage

func readBaseline(path string) (b Baseline, err error) {
	content, err := os.ReadFile(path) //nolint:gosec // beside this file
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(content, &b); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

func (b Baseline) write(path string) error {
	for _, stage := range b {
		for metric, value := range stage {
			stage[metric] = math.Round(value*100) / 100
		}
	}
	content, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(content, '\n'), 0o600)
}

// compare gives a table, what has grown, and what has become so much less that the baseline should
// follow.
func compare(baseline, now Baseline, stages []string) (table string, grown, lower []string) {
	var b strings.Builder
	fmt.Fprintf(&b, "%-12s %-12s %12s %12s %12s\n", "stage", "metric", "baseline", "now", "at most")
	for _, stage := range stages {
		for _, m := range metrics {
			value, ok := now[stage][m.name]
			if !ok {
				continue
			}
			was, known := baseline[stage][m.name]
			margin := max(was*m.share, m.constant)
			fmt.Fprintf(&b, "%-12s %-12s %12.2f %12.2f %12.2f\n", stage, m.name, was, value, was+margin)
			switch name := stage + " " + m.name; {
			case !known:
				grown = append(grown, name+" has no baseline")
			case value > was+margin:
				grown = append(grown, fmt.Sprintf("%s: %.2f of a payment, and the baseline allows %.2f", name, value, was+margin))
			case value < was-margin:
				lower = append(lower, fmt.Sprintf("%s: %.2f instead of %.2f", name, value, was))
			}
		}
	}
	slices.Sort(grown)
	return b.String(), grown, lower
}
