package simulator

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	lookup       = "lookup"
	webhook      = "webhook" // a notification; has kinds of its own
	anyOperation = "*"       // any but a webhook

	maxFaults  = 100
	maxLatency = 10 * 60 * 1000   // milliseconds
	maxSeconds = 7 * 24 * 60 * 60 // of a fault's life
)

// fault strikes each request to its operation with the probability rate.
type fault struct {
	ID        string  `json:"id"`
	Object    string  `json:"object"` // "fault"
	Kind      string  `json:"kind"`
	Operation string  `json:"operation"`
	Rate      float64 `json:"rate"`
	LatencyMS int64   `json:"latency_ms"`
	Seconds   int64   `json:"seconds"` // 0: until cleared
	Created   string  `json:"created"`
	Expires   *string `json:"expires"`
	Struck    int64   `json:"struck"` // requests so far

	ends time.Time // zero: never
}

type faultRequest struct {
	Kind      string   `json:"kind"`
	Operation string   `json:"operation"`
	Rate      *float64 `json:"rate"`
	LatencyMS *int64   `json:"latency_ms"`
	Seconds   int64    `json:"seconds"`
}

// newFault checks a request and fills in its defaults.
func newFault(r faultRequest) (fault, error) {
	f := fault{Object: "fault", Kind: r.Kind, Operation: r.Operation, Rate: 1, Seconds: r.Seconds}
	if f.Operation == "" {
		f.Operation = anyOperation
	}
	if r.Rate != nil {
		f.Rate = *r.Rate
	}
	switch f.Kind {
	case lateApplied:
		f.LatencyMS = lateLatency.Milliseconds()
	case slow:
		f.LatencyMS = slowLatency.Milliseconds()
	case late, reorder:
		f.LatencyMS = notifyLatency.Milliseconds()
	}
	if r.LatencyMS != nil {
		f.LatencyMS = *r.LatencyMS
	}
	kinds := []string{outage, serverError, timeoutApplied, timeoutLost, lateApplied, slow}
	if f.Operation == webhook {
		kinds = []string{duplicate, late, reorder, lost}
	}
	operations := []string{authorization, capture, void, refund, lookup, webhook, anyOperation}
	switch {
	case !slices.Contains(kinds, f.Kind):
		return fault{}, invalid("/kind", "must be one of %q for this operation", kinds)
	case !slices.Contains(operations, f.Operation):
		return fault{}, invalid("/operation", "must be one of %q", operations)
	case !(f.Rate > 0 && f.Rate <= 1):
		return fault{}, invalid("/rate", "must be more than 0 and at most 1")
	case f.LatencyMS < 0 || f.LatencyMS > maxLatency:
		return fault{}, invalid("/latency_ms", "must be from 0 to %d milliseconds", maxLatency)
	case f.Seconds < 0 || f.Seconds > maxSeconds:
		return fault{}, invalid("/seconds", "must be from 0 to %d", maxSeconds)
	}
	return f, nil
}

// faults are those in force, oldest first. They are not kept over a restart.
type faults struct {
	clock  Clock
	mu     sync.Mutex
	random *rand.Rand
	active []*fault
}

func (fs *faults) add(f fault) (fault, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.expire()
	if len(fs.active) >= maxFaults {
		return fault{}, refuse(http.StatusConflict, "too_many_faults", "", "There are %d faults already: clear them first.", maxFaults)
	}
	now := fs.clock.Now()
	f.ID = fmt.Sprintf("fault_%016x", fs.random.Uint64())
	f.Created = timestamp(now)
	if f.Seconds > 0 {
		f.ends = now.Add(time.Duration(f.Seconds) * time.Second)
		f.Expires = new(timestamp(f.ends))
	}
	fs.active = append(fs.active, &f)
	return f, nil
}

func (fs *faults) list() []fault {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.expire()
	all := make([]fault, 0, len(fs.active))
	for _, f := range fs.active {
		all = append(all, *f)
	}
	return all
}

func (fs *faults) clear() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.active = nil
}

// next decides for one request: the oldest fault that hits it strikes alone.
func (fs *faults) next(operationType string) strike {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.expire()
	for _, f := range fs.active {
		if f.Operation != operationType && (f.Operation != anyOperation || operationType == webhook) {
			continue
		}
		if f.Rate < 1 && fs.random.Float64() >= f.Rate {
			continue
		}
		f.Struck++
		return strike{f.Kind, time.Duration(f.LatencyMS) * time.Millisecond}
	}
	return strike{}
}

func (fs *faults) expire() {
	now := fs.clock.Now()
	fs.active = slices.DeleteFunc(fs.active, func(f *fault) bool { return !f.ends.IsZero() && !now.Before(f.ends) })
}
