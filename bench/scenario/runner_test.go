package scenario

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"payments/bench/stack"
)

// script is a scenario whose contenders do what they are told, on a stack that is not used.
func script(t *testing.T) (*Runner, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	dir := t.TempDir()
	return &Runner{Options: Options{Dir: dir, Rounds: 3, Out: &out}, results: results{dir}, running: &stack.Stack{}}, &out
}

func TestAStoppedRunGoesOnAndAFailedRoundIsMeasuredAgain(t *testing.T) {
	r, out := script(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var order []string
	broken := errors.New("the audit found a violation")
	s := scenario{name: "test", columns: []column{{"per_s", "per s", "%.0f"}}}
	for _, name := range []string{"at 50 %", "other"} {
		s.contenders = append(s.contenders, contender{name: name, measure: func(context.Context, *Runner) (Values, error) {
			order = append(order, name)
			switch len(order) {
			case 2:
				return Values{"per_s": 1}, broken
			case 4:
				stop()
			}
			return Values{"per_s": float64(len(order))}, nil
		}})
	}
	if err := r.scenario(ctx, s); !errors.Is(err, broken) || !errors.Is(err, context.Canceled) {
		t.Errorf("the first run: %v", err)
	}
	if got := strings.Join(order, ","); got != "at 50 %,other,at 50 %,other" {
		t.Errorf("not interleaved: %s", got)
	}
	order, broken = nil, nil
	if err := r.scenario(t.Context(), s); err != nil {
		t.Errorf("the second run: %v", err)
	}
	if got := strings.Join(order, ","); got != "other,other,at 50 %,other" {
		t.Errorf("measured again: %s", got)
	}
	if err := r.print(s); err != nil || !strings.Contains(out.String(), "at 50 %    3 (1 to 3)") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestFreshRemovesResultsAlone(t *testing.T) {
	r, _ := script(t)
	kept := filepath.Join(r.Dir, "notes.json")
	if err := errors.Join(os.WriteFile(kept, nil, 0o600), r.results.save(Result{Scenario: "test", Contender: "ours", Round: 1})); err != nil {
		t.Fatal(err)
	}
	if err := r.results.remove(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(r.Dir)
	if err != nil || len(left) != 1 || left[0].Name() != "notes.json" {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestTheMedianOfAnEvenNumberIsBetween(t *testing.T) {
	rounds := []Values{{"x": 4}, {"x": 1}, {}, {"x": 2}, {"x": 9}}
	if median, low, high, ok := spread(rounds, "x"); !ok || median != 3 || low != 1 || high != 9 {
		t.Errorf("%v of %v to %v, %v", median, low, high, ok)
	}
	if _, _, _, ok := spread(rounds, "y"); ok {
		t.Error("a metric that no round has has a median")
	}
}
