package dudect

import (
	"math"
	"testing"
)

func TestWelch(t *testing.T) {
	for _, c := range []struct {
		a, b []float64
		want float64
	}{
		{[]float64{1, 2, 3}, []float64{2, 4, 6}, -2 / math.Sqrt(5.0/3)}, // means 2 and 4, variances 1 and 4
		{[]float64{1, 2, 3}, []float64{1, 2, 3}, 0},
		{[]float64{5}, []float64{1, 2}, certain},
	} {
		if got := welch(c.a, c.b); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("welch(%v, %v) = %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

func TestTheClearestCropCounts(t *testing.T) {
	// The same but for what an interrupt did to one of them.
	a, b := []float64{10, 11, 12, 13, 1e6, 1e6}, []float64{20, 21, 22, 23, 10, 10}
	if whole, cropped := welch(a, b), statistic([2][]float64{a, b}); math.Abs(whole) > 2 || math.Abs(cropped) < 2 {
		t.Errorf("t is %.1f for all and %.1f cropped", whole, cropped)
	}
}

func TestWhatTheSameGuessesShowTooIsNoLeak(t *testing.T) {
	var biased, leaking evidence
	for range rounds {
		biased.add(measured{subject: 5, same: 5})
		leaking.add(measured{subject: 5})
	}
	if math.Abs(biased.subject()) > limit || math.Abs(leaking.subject()) < limit {
		t.Errorf("t is %.1f of a bias and %.1f of a leak", biased.subject(), leaking.subject())
	}
}
