// Package dudect asks by measurement whether the time of a comparison depends on
// the secret it compares with: the method of Reparaz, Balasch and Verbauwhede,
// "Dude, is my code constant time?" (DATE 2017). Inputs of two classes, one fixed
// and one random, are measured in random order, and Welch's t-test says whether
// the two distributions of times have the same mean.
//
// It is for tests, and imports nothing of the service.
package dudect

import (
	"crypto/subtle"
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
// The subject is also asked about guesses that are the same in both classes. Whatever
// tells the classes apart there is the measurement's own, and is taken off what the
// subject shows: many rounds add up a bias of the preparation as they do a leak.
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
	var all evidence
	clean := false
	for n := 1; n <= rounds; n++ {
		m := e.round(r, samples)
		all.add(m)
		clean = (clean || math.Abs(m.own()) < limit) && !(thorough && math.Abs(all.subject()) > limit)
		t.Logf("round %d of %d measurements each: t of the control is %.1f, of the subject %.1f, of the same guesses %.1f", n, samples, m.control, m.subject, m.same)
		found, last := math.Abs(all.control()) > limit, n == rounds
		switch {
		case found && clean && (last || !thorough):
			return
		case last && !found:
			t.Errorf("the control, which stops early, was not found in %d rounds", rounds)
		case last:
			t.Errorf("the time depends on the secret: t is %.1f over all rounds, less that of the same guesses", all.subject())
		}
	}
}

// measured is t for each of the three that a round measures.
type measured struct{ control, subject, same float64 }

// own is what the subject shows and the same guesses do not, scaled so that chance
// makes as much of it as of either: a leak has to be √2 times as clear in one round.
func (m measured) own() float64 { return (m.subject - m.same) / math.Sqrt2 }

// evidence is what rounds say together: the sum of n values of variance 1, over its
// deviation (Stouffer).
type evidence struct{ n, controls, subjects float64 }

func (e *evidence) add(m measured) {
	e.n, e.controls, e.subjects = e.n+1, e.controls+m.control, e.subjects+m.own()
}

func (e *evidence) control() float64 { return e.controls / math.Sqrt(e.n) }
func (e *evidence) subject() float64 { return e.subjects / math.Sqrt(e.n) }

// round measures the three alike and in turns, so that what disturbs one disturbs the others.
func (e Experiment) round(r *rand.Rand, samples int) measured {
	const kinds = 3
	var times [kinds][2][]float64 // by class
	size := len(e.Fixed)
	guesses, same := make([]byte, batch*size), make([]byte, batch*size)
	for at := 0; at < len(same); at += size {
		e.Random(same[at : at+size])
	}
	for i := range kinds * samples {
		class := r.IntN(2)
		// Both classes stand in the same memory and come to it by the same instructions:
		// where data lies, and what was done just before, changes the time it takes.
		for at := 0; at < len(guesses); at += size {
			guess := guesses[at : at+size]
			e.Random(guess)
			subtle.ConstantTimeCopy(1-class, guess, e.Fixed)
		}
		kind := i % kinds
		f, asked := e.Subject, guesses
		switch kind {
		case 0:
			f = e.Control
		case 2:
			asked = same
		}
		start := time.Now()
		for at := 0; at < len(asked); at += size {
			f(asked[at : at+size])
		}
		times[kind][class] = append(times[kind][class], float64(time.Since(start)))
	}
	return measured{control: statistic(times[0]), subject: statistic(times[1]), same: statistic(times[2])}
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
