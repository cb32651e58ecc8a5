package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Values of one round, by the name of the metric.
type Values map[string]float64

// Result of one round of one contender in one scenario: the content of a file.
type Result struct {
	Scenario    string        `json:"scenario"`
	Contender   string        `json:"contender"`
	Round       int           `json:"round"`
	StartedAt   time.Time     `json:"started_at"`
	Took        time.Duration `json:"took_ns"`
	LoadAverage string        `json:"load_average_before"`
	Environment Environment   `json:"environment"`
	// Failed is why there are no values, for instance a violation that the audit found.
	Failed string `json:"failed,omitempty"`
	Values Values `json:"values,omitempty"`
}

// results are the files of one run.
type results struct{ dir string }

func (r results) path(scenario, contender string, round int) string {
	name := strings.NewReplacer(" %", "", " ", "-").Replace(contender)
	return filepath.Join(r.dir, fmt.Sprintf("%s.%s.%d.json", scenario, name, round))
}

// load gives nil when the round has not been measured, or failed.
func (r results) load(scenario, contender string, round int) (*Result, error) {
	content, err := os.ReadFile(r.path(scenario, contender, round))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no result is no error
	}
	if err != nil {
		return nil, err
	}
	var one Result
	if err := json.Unmarshal(content, &one); err != nil {
		return nil, fmt.Errorf("%s: %w", r.path(scenario, contender, round), err)
	}
	if one.Failed != "" {
		return nil, nil //nolint:nilnil // it is measured again
	}
	return &one, nil
}

// save is atomic, so that a stopped run leaves whole files alone.
func (r results) save(one Result) error {
	content, err := json.MarshalIndent(one, "", "  ")
	if err != nil {
		return err
	}
	path := r.path(one.Scenario, one.Contender, one.Round)
	if err := os.WriteFile(path+".new", append(content, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// remove the files of results, and no others.
func (r results) remove() error {
	paths, err := filepath.Glob(filepath.Join(r.dir, "*.*.*.json"))
	for _, path := range paths {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// rounds are those of the contender that have been measured.
func (r results) rounds(scenario, contender string, most int) (all []Values, err error) {
	for round := 1; round <= most; round++ {
		one, err := r.load(scenario, contender, round)
		if err != nil {
			return nil, err
		}
		if one != nil {
			all = append(all, one.Values)
		}
	}
	return all, nil
}

// spread is the median, the smallest and the largest value of the rounds that have the metric.
func spread(rounds []Values, metric string) (median, low, high float64, ok bool) {
	var all []float64
	for _, v := range rounds {
		if x, has := v[metric]; has {
			all = append(all, x)
		}
	}
	if len(all) == 0 {
		return 0, 0, 0, false
	}
	slices.Sort(all)
	median = all[len(all)/2]
	if len(all)%2 == 0 {
		median = (all[len(all)/2-1] + all[len(all)/2]) / 2
	}
	return median, all[0], all[len(all)-1], true
}
