package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/access"
	"payments/internal/payment"
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
	// Most streams at once of this process, and of one API key in it. Default 1000 and 20.
	Most, MostOfKey int
	// Heartbeat is between two comments. Default 15 s, below the idle timeouts of the
	// usual proxies (60 s).
	Heartbeat time.Duration
	// WriteTimeout is how long a client may leave what was sent to it unread. Default 10 s.
	WriteTimeout time.Duration
	Now          func() time.Time
	Registerer   prometheus.Registerer
}

// Streams are the open event streams of a process: how many there may be, what wakes
// them, and what ends them beside their clients.
type Streams struct {
	StreamsConfig
	opened  *prometheus.GaugeVec
	ended   *prometheus.CounterVec
	refused *prometheus.CounterVec

	places places

	mu       sync.Mutex
	open     map[*stream]bool
	draining bool

	// Of Turn alone.
	pause                   time.Duration
	nextLook, checked, keys time.Time
	looked                  time.Time // the last look that succeeded, or was not needed
}

// stream is one that is open; its context ends with it.
type stream struct {
	keyID string
	end   context.CancelCauseFunc
}

// NewStreams registers payments_http_streams_open, payments_http_streams_ended_total
// and payments_http_streams_refused_total.
func NewStreams(c StreamsConfig) (*Streams, error) {
	if c.Followers == nil || c.Keys == nil || c.Now == nil || c.Registerer == nil {
		return nil, errors.New("api: streams need followers, keys, a clock and a registerer")
	}
	if c.Most < 0 || c.MostOfKey < 0 || c.Heartbeat < 0 || c.WriteTimeout < 0 {
		return nil, errors.New("api: no number and no time of streams can be negative")
	}
	c.Most, c.MostOfKey = cmp.Or(c.Most, 1000), cmp.Or(c.MostOfKey, 20)
	c.Heartbeat, c.WriteTimeout = cmp.Or(c.Heartbeat, 15*time.Second), cmp.Or(c.WriteTimeout, 10*time.Second)
	s := &Streams{
		StreamsConfig: c, places: places{most: c.Most, mostOfKey: c.MostOfKey}, open: map[*stream]bool{}, pause: firstLook, looked: c.Now(),
		opened: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_http_streams_open", Help: "Event streams that are open, by pattern of the route.",
		}, []string{"route"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_http_streams_ended_total",
			Help: "Event streams that have ended, by why: client (gone, or too slow), drain, key (revoked or expired), error.",
		}, []string{"why"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "payments_http_streams_refused_total", Help: "Event streams that were one too many, by whose bound it was: key or process.",
		}, []string{"bound"}),
	}
	for _, m := range []prometheus.Collector{s.opened, s.ended, s.refused} {
		if err := c.Registerer.Register(m); err != nil {
			return nil, fmt.Errorf("register metric: %w", err)
		}
	}
	return s, nil
}

// begin takes a place for a stream, whose context has the cause for which it was ended;
// end gives the place back.
func (s *Streams) begin(ctx context.Context, keyID, route string) (_ context.Context, end func(error), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return nil, nil, errUnavailable
	}
	giveBack, bound := s.places.take(keyID)
	if bound != "" {
		s.refused.WithLabelValues(bound).Inc()
	}
	switch bound {
	case boundKey:
		return nil, nil, payment.Errorf(codeTooManyStreams, "This API key has as many event streams open as it may have. Close one, or follow the merchant's feed.")
	case boundProcess:
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
		giveBack()
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

// Turn looks for events and at the streams' keys, each when it is time to, and at
// nothing while no stream is open.
func (s *Streams) Turn(ctx context.Context) (more bool, err error) {
	now, keys := s.Now(), s.places.keys()
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
	return s.Followers.Turn(ctx)
}

func (s *Streams) endAll(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.open {
		st.end(cause)
	}
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
