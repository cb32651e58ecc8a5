// Package dudect asks by measurement whether the time of a comparison depends on
// the secret it compares with: the method of Reparaz, Balasch and Verbauwhede,
// "Dude, is my code constant time?" (DATE 2017). Inputs of two classes, one fixed
// and one random, are measured in random order, and Welch's t-test says whether
// the two distributions of times have the same mean.
//
// It is for tests, and imports nothing of the service.
package dudect

import (
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

const (
	batch = 64 // calls in one measurement, since a call is as short as the clock is coarse
	// limit of |t|. The authors call 4.5 a suspicion and 10 a certainty.
	limit   = 10
	certain = 1000
	rounds  = 12
	// SamplesVariable is the number of measurements in a round, instead of 4000.
	SamplesVariable = "DUDECT_SAMPLES"
)

// crops are the quantiles above which times are dropped: an interrupt is longer
// than any difference that is looked for. The clearest answer counts.
var crops = []float64{.5, .75, .9, 1}

// Experiment is one place where a secret is compared.
type Experiment struct {
	Fixed   []byte            // what a guess that is nearly right looks like
	Random  func(into []byte) // a guess that is not, of the same length
	Subject func(guess []byte)
	// Control does the same with a comparison that stops early. If it is not found,
	// the experiment cannot find anything.
	Control func(guess []byte)
}

// Run fails the test when the subject's time depends on its input, or when the
// control's does not. Neither needs a quiet machine: noise is as likely to be on
// one side as on the other, and a difference of means that is there is there in each
// round, so that a round of doubt is measured again. With SamplesVariable all rounds
// are measured, and what they say together counts.
//
// Under the race detector nothing is measured but the detector: the test is skipped.
func Run(t *testing.T, e Experiment) {
	t.Helper()
	if raced {
		t.Skip("the race detector's own time would be measured: see make timing")
	}
	samples, thorough := 4000, false
	if text := os.Getenv(SamplesVariable); text != "" {
		var err error
		if samples, err = strconv.Atoi(text); err != nil || samples < 100 {
			t.Fatalf("%s must be a number of at least 100", SamplesVariable)
		}
		thorough = true
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0)) //nolint:gosec // the order of measurements is no secret
	var control, subject float64                                 // sums over the rounds
	clean := false
	for n := 1.0; n <= rounds; n++ {
		c, s := e.round(r, samples)
		control, subject = control+c, subject+s
		// The sum of n values of variance 1, over its deviation (Stouffer).
		found := math.Abs(control)/math.Sqrt(n) > limit
		clean = (clean || math.Abs(s) < limit) && !(thorough && math.Abs(subject)/math.Sqrt(n) > limit)
		t.Logf("round %.0f of %d measurements each: |t| of the control is %.1f, of the subject %.1f", n, samples, math.Abs(c), math.Abs(s))
		switch last := n == rounds; {
		case found && clean && (last || !thorough):
			return
		case last && !found:
			t.Errorf("the control, which stops early, was not found in %d rounds", rounds)
		case last:
			t.Errorf("the time depends on the secret: t was %.1f on average", subject/n)
		}
	}
}

// round measures both alike and in turns, so that what disturbs one disturbs the other.
func (e Experiment) round(r *rand.Rand, samples int) (control, subject float64) {
	var times [2][2][]float64 // of control and subject, by class
	guesses := make([]byte, batch*len(e.Fixed))
	for i := range 2 * samples {
		class := r.IntN(2)
		// Both classes stand in the same memory: where data lies changes the time it takes.
		for at := 0; at < len(guesses); at += len(e.Fixed) {
			guess := guesses[at : at+len(e.Fixed)]
			e.Random(guess)
			if class == 0 {
				copy(guess, e.Fixed)
			}
		}
		f := e.Control
		if i%2 == 1 {
			f = e.Subject
		}
		start := time.Now()
		for at := 0; at < len(guesses); at += len(e.Fixed) {
			f(guesses[at : at+len(e.Fixed)])
		}
		times[i%2][class] = append(times[i%2][class], float64(time.Since(start)))
	}
	return statistic(times[0]), statistic(times[1])
}

// statistic is the t of the crop that shows most.
func statistic(classes [2][]float64) (most float64) {
	all := slices.Sorted(slices.Values(slices.Concat(classes[0], classes[1])))
	for _, q := range crops {
		last := all[int(q*float64(len(all)-1))]
		long := func(x float64) bool { return x > last }
		t := welch(slices.DeleteFunc(slices.Clone(classes[0]), long), slices.DeleteFunc(slices.Clone(classes[1]), long))
		if math.Abs(t) > math.Abs(most) {
			most = t
		}
	}
	return most
}

// welch is t for two samples of unequal variance.
func welch(a, b []float64) float64 {
	if len(a) < 2 || len(b) < 2 {
		return certain // a crop that drops a whole class has told them apart
	}
	ma, va := moments(a)
	mb, vb := moments(b)
	if ma == mb {
		return 0
	}
	return (ma - mb) / math.Sqrt(va/float64(len(a))+vb/float64(len(b)))
}

func moments(x []float64) (mean, variance float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		variance += (v - mean) * (v - mean) / float64(len(x)-1)
	}
	return mean, variance
}
