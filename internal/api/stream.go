package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/access"
	"payments/internal/readmodel"
)

const (
	// Between two looks for events: short after there were some, and longer the longer
	// there are none, as a single read waits (internal/readmodel).
	firstLook = 20 * time.Millisecond
	lastLook  = 250 * time.Millisecond
	// keyCheck is how long a stream may outlive its API key, and keyPatience how long it
	// goes on while nobody can say whether the key is still one.
	keyCheck    = time.Second
	keyPatience = 10 * time.Second
	// lookPatience is how long a stream stays open while nobody can look for its events,
	// and lookTimeout bounds one look: a connection may be dead without a word.
	lookPatience = 10 * time.Second
	lookTimeout  = 5 * time.Second
)

var (
	errStreamDrained = errors.New("the service is stopping")
	errStreamKey     = errors.New("the API key is no longer valid")
	errStreamBlind   = errors.New("the read database cannot be read")
)

// Live tells which of the API keys are still valid.
type Live interface {
	Live(ctx context.Context, keyIDs []string) (map[string]bool, error)
}

// StreamsConfig needs Followers, Keys, Now and Registerer.
type StreamsConfig struct {
	Followers *readmodel.Followers
	Keys      Live
	// Heartbeat is between two comments. Default 15 s, below the idle timeouts of the
	// usual proxies (60 s).
	Heartbeat time.Duration
	// WriteTimeout is how long a client may leave what was sent to it unread. Default 10 s.
	WriteTimeout time.Duration
	Now          func() time.Time
	Registerer   prometheus.Registerer
}

// Streams are the open event streams of a process: what wakes them, and what ends them
// besides their clients. How many there may be is the server's to say (slots).
type Streams struct {
	StreamsConfig
	opened *prometheus.GaugeVec
	ended  *prometheus.CounterVec

	mu       sync.Mutex
	open     map[*stream]bool
	draining bool

	// Of RunOnce alone.
	pause                   time.Duration
	nextLook, checked, keys time.Time
	looked                  time.Time // the last look that succeeded, or was not needed
}

// stream is one that is open; its context ends with it.
type stream struct {
	keyID string
	end   context.CancelCauseFunc
}

// NewStreams registers payments_http_streams_open and payments_http_streams_ended_total.
func NewStreams(c StreamsConfig) (*Streams, error) {
	if c.Followers == nil || c.Keys == nil || c.Now == nil || c.Registerer == nil {
		return nil, errors.New("api: streams need followers, keys, a clock and a registerer")
	}
	if c.Heartbeat < 0 || c.WriteTimeout < 0 {
		return nil, errors.New("api: no time of streams can be negative")
	}
	c.Heartbeat, c.WriteTimeout = cmp.Or(c.Heartbeat, 15*time.Second), cmp.Or(c.WriteTimeout, 10*time.Second)
	s := &Streams{
		StreamsConfig: c, open: map[*stream]bool{}, pause: firstLook, looked: c.Now(),
		opened: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_http_streams_open", Help: "Event streams that are open, by pattern of the route.",
		}, []string{"route"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_http_streams_ended_total",
			Help: "Event streams that have ended, by why: client (gone, or too slow), drain, key (revoked or expired), error.",
		}, []string{"why"}),
	}
	for _, m := range []prometheus.Collector{s.opened, s.ended} {
		if err := c.Registerer.Register(m); err != nil {
			return nil, fmt.Errorf("register metric: %w", err)
		}
	}
	return s, nil
}

// begin opens a stream, whose context has the cause for which it was ended. The caller has a
// slot for it, and calls end once. Error: CodeServiceUnavailable during a drain.
func (s *Streams) begin(ctx context.Context, keyID, route string) (_ context.Context, end func(error), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return nil, nil, errUnavailable
	}
	ctx, cancel := context.WithCancelCause(ctx)
	st := &stream{keyID, cancel}
	s.open[st] = true
	s.opened.WithLabelValues(route).Inc()
	return ctx, func(err error) {
		cause := context.Cause(ctx)
		cancel(nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, st)
		s.opened.WithLabelValues(route).Dec()
		s.ended.WithLabelValues(why(cause, err)).Inc()
	}, nil
}

func why(cause, err error) string {
	switch {
	case errors.Is(cause, errStreamDrained):
		return "drain"
	case errors.Is(cause, errStreamKey):
		return "key"
	case errors.Is(cause, errStreamBlind), cause == nil && err != nil:
		return "error"
	}
	return "client"
}

// Drain ends all streams and lets none begin any more: their clients go on elsewhere,
// behind the last event that they have.
func (s *Streams) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for st := range s.open {
		st.end(errStreamDrained)
	}
}

// drained says why nothing that has no end of its own may go on any more.
func (s *Streams) drained() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return errStreamDrained
	}
	return nil
}

// RunOnce looks for events and at the streams' keys, each when it is time to, and at
// nothing while no stream is open.
func (s *Streams) RunOnce(ctx context.Context) (more bool, err error) {
	now, keys := s.Now(), s.openKeys()
	if len(keys) == 0 {
		s.checked, s.looked = now, now
		return false, nil
	}
	if now.Sub(s.keys) >= keyCheck {
		s.keys = now
		err = s.checkKeys(ctx, now, keys)
	}
	if now.Before(s.nextLook) {
		return false, err
	}
	more, found, lookErr := s.look(ctx)
	if lookErr == nil {
		s.looked = now
	} else if now.Sub(s.looked) >= lookPatience {
		s.endAll(errStreamBlind) // a stream without events must not look like one that cannot have any
	}
	if found {
		s.pause = firstLook
	} else {
		s.pause = min(s.pause*3/2, lastLook)
	}
	s.nextLook = now.Add(s.pause)
	if more {
		s.nextLook = now
	}
	return more, errors.Join(err, lookErr)
}

func (s *Streams) look(ctx context.Context) (more, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return s.Followers.RunOnce(ctx)
}

func (s *Streams) endAll(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.open {
		st.end(cause)
	}
}

// openKeys are the ids of the API keys that have a stream open.
func (s *Streams) openKeys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := map[string]bool{}
	for st := range s.open {
		keys[st.keyID] = true
	}
	return slices.Collect(maps.Keys(keys))
}

// checkKeys ends the streams of keys that are no longer live.
func (s *Streams) checkKeys(ctx context.Context, now time.Time, keys []string) error {
	asking, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	live, err := s.Keys.Live(asking, keys)
	if err != nil {
		if now.Sub(s.checked) < keyPatience {
			return err
		}
		live = nil // nobody knows
	} else {
		s.checked = now
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.open {
		if slices.Contains(keys, st.keyID) && !live[st.keyID] {
			st.end(errStreamKey)
		}
	}
	return err
}

var _ Live = (*access.Authenticator)(nil)
