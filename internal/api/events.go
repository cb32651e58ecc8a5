package api

import (
	"bytes"
	"context"
	"encoding/json" // as webhooks are written
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"payments/internal/payment"
	"payments/internal/readmodel"
	"payments/internal/webhook"
)

const (
	streamPage = 100 // events that a stream holds in memory
	// streamRetry is how long a client is asked to wait before it comes again, in milliseconds.
	streamRetry = "2000"
)

const headerLastEventID = "Last-Event-ID"

// subject is what a stream follows.
type subject struct {
	merchantID, paymentID string // no payment: the merchant's feed
	// read gives what follows a position.
	read func(ctx context.Context, after readmodel.FeedCursor) ([]readmodel.FeedEvent, error)
	// begin is where a stream without Last-Event-ID begins.
	begin func(ctx context.Context) (readmodel.FeedCursor, error)
}

// streamPayment is of one payment, from its first event on. It does not end with the
// payment: a payment that has succeeded may be given back, and one that has ended may
// come to be reviewed.
func (s *server) streamPayment(ctx context.Context, c *call) error {
	var p readmodel.Payment
	id := chi.URLParam(c.r, "id")
	err := s.projected(ctx, c, id, func() (err error) {
		p, err = s.Payments.Get(ctx, c.scope, id)
		return err
	})
	if err != nil {
		return err
	}
	return s.stream(ctx, c, subject{
		merchantID: p.MerchantID, paymentID: p.ID,
		read: func(ctx context.Context, after readmodel.FeedCursor) ([]readmodel.FeedEvent, error) {
			events, err := s.Payments.EventsOf(ctx, p.MerchantID, p.ID, after, streamPage)
			return events, expired(err)
		},
		begin: func(context.Context) (readmodel.FeedCursor, error) { return readmodel.FeedCursor{}, nil },
	})
}

// streamMerchant is of all payments of a merchant, from now on.
func (s *server) streamMerchant(ctx context.Context, c *call) error {
	asked, err := c.askedMerchant()
	if err != nil {
		return err
	}
	merchantID, all := c.scope.Merchant()
	switch {
	case all && asked == "":
		return queryError("/query/merchant", "parameter_missing", "must name the merchant whose events are to be followed")
	case all:
		merchantID = asked
	case asked != "" && asked != merchantID:
		return payment.Errorf(payment.CodeNotFound, "There is no such object.")
	}
	return s.stream(ctx, c, subject{
		merchantID: merchantID,
		read: func(ctx context.Context, after readmodel.FeedCursor) ([]readmodel.FeedEvent, error) {
			events, err := s.Payments.Feed(ctx, merchantID, after, streamPage)
			return events, expired(err)
		},
		begin: func(ctx context.Context) (readmodel.FeedCursor, error) { return s.Payments.FeedHead(ctx, merchantID) },
	})
}

func expired(err error) error {
	if errors.Is(err, readmodel.ErrFeedExpired) {
		return payment.Errorf(codeEventsExpired, "The events behind this Last-Event-ID are no longer kept. Begin without it, and list what has changed.").Because(err)
	}
	return err
}

// stream answers with Server-Sent Events (WHATWG HTML, 9.2) until the client goes, its
// key ends or the service does. It holds a page of events at most, and no connection to
// the database while it waits. What cannot be begun is a problem document; a stream that
// breaks off ends, and the client is told what is the matter when it comes again.
func (s *server) stream(ctx context.Context, c *call, of subject) (err error) {
	at, err := s.lastEventID(ctx, c, of)
	if err != nil {
		return err
	}
	release, err := s.hold(c, heldStream)
	if err != nil {
		return err
	}
	defer release()
	following, end, err := s.Streams.begin(c.streaming, c.principal.KeyID, c.w.route)
	if err != nil {
		return err
	}
	var broken error
	defer func() { end(errors.Join(err, broken)) }()
	// Before the first read, so that nothing comes between.
	wake, stop := s.Streams.Followers.Follow(of.merchantID, of.paymentID)
	defer stop()
	events, err := of.read(ctx, at)
	if err != nil {
		return err
	}
	c.w.streams = true
	c.w.Header().Set("Content-Type", "text/event-stream")
	c.w.Header().Set("X-Accel-Buffering", "no") // nginx would keep events until it has a page of them
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return nil
	}
	if broken = s.follow(following, c, of, at, events, wake); broken != nil {
		s.Log.WarnContext(ctx, "event stream broken off", "request_id", c.w.requestID, "route", c.w.route, "error", broken)
	}
	return nil
}

// follow writes the events behind at and what comes after them. It returns nil when the
// client has gone, or ctx has ended.
func (s *server) follow(ctx context.Context, c *call, of subject, at readmodel.FeedCursor, events []readmodel.FeedEvent, wake <-chan struct{}) (err error) {
	heartbeat := time.NewTicker(s.Streams.Heartbeat)
	defer heartbeat.Stop()
	var b bytes.Buffer
	// An id without data is no event: it is where a client resumes that is cut off before its first.
	b.WriteString("retry: " + streamRetry + "\nid: " + *s.eventID(c, at) + "\n\n")
	for {
		for _, e := range events {
			if at = e.Cursor(); e.ID == "" {
				continue
			}
			if err := s.writeEvent(&b, c, e); err != nil {
				return err
			}
		}
		if c.send(&b, s.Streams.WriteTimeout) != nil {
			return nil
		}
		if len(events) == 0 {
			select {
			case <-ctx.Done():
			case <-heartbeat.C:
				b.WriteString(":\n\n")
				continue
			case <-wake:
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if events, err = s.readOn(ctx, of, at); err != nil {
			return err
		}
	}
}

func (s *server) readOn(ctx context.Context, of subject, at readmodel.FeedCursor) ([]readmodel.FeedEvent, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	events, err := of.read(ctx, at)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil, nil // the stream has ended meanwhile
	}
	return events, err
}

// writeEvent has a webhook's body for data: one line, as JSON always is here.
func (s *server) writeEvent(b *bytes.Buffer, c *call, e readmodel.FeedEvent) error {
	data, err := json.Marshal(webhook.NewPayload(e.Event))
	if err != nil {
		return err
	}
	b.WriteString("id: " + *s.eventID(c, e.Cursor()) + "\nevent: " + string(e.Type) + "\ndata: ")
	b.Write(data)
	b.WriteString("\n\n")
	return nil
}

// send leaves the buffer empty.
func (c *call) send(b *bytes.Buffer, within time.Duration) error {
	if b.Len() == 0 {
		return nil
	}
	control := http.NewResponseController(c.w)
	if err := control.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	_, err := b.WriteTo(c.w)
	b.Reset()
	return errors.Join(err, control.Flush())
}

// eventID is a cursor of the stream that the request is for.
func (s *server) eventID(c *call, at readmodel.FeedCursor) *string {
	return s.behind(c, strconv.FormatInt(at.Position, 10), at.EventID)
}

// lastEventID is where the stream is to go on. An id that a version before this one has
// given has a position alone.
func (s *server) lastEventID(ctx context.Context, c *call, of subject) (at readmodel.FeedCursor, err error) {
	values := sent(c.r, headerLastEventID)
	if len(values) == 0 {
		return of.begin(ctx)
	}
	cursor, ok := s.readCursor(c, values[0])
	if ok = ok && len(values) == 1 && len(cursor) <= 2; ok {
		if at.Position, err = strconv.ParseInt(cursor[0], 10, 64); err == nil {
			if len(cursor) == 2 {
				at.EventID = cursor[1]
			}
			return at, nil
		}
	}
	return readmodel.FeedCursor{}, payment.Errorf(codeLastEventIDInvalid, "The Last-Event-ID header has to be one id that this stream has given.")
}
