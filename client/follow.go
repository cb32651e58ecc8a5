package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Followed is an event of a stream.
type Followed struct {
	// ID is for the LastEventID of a stream that is to go on behind this event, in
	// another process too.
	ID    string
	Event Event
}

const (
	// idleAfter is three of the comments that the service sends every 15 s: a stream
	// without any is of a connection that nobody has told of its end.
	idleAfter = 45 * time.Second
	// comeAgain is the pause before a stream is opened again where it did not say.
	comeAgain = 2 * time.Second
	// maxLine bounds what a stream may have the client hold.
	maxLine = 1 << 20
)

var errIdle = errors.New("nothing came over the stream")

// follow gives the events of a stream (Server-Sent Events, WHATWG HTML 9.2), and opens
// it again behind the last one whenever it ends, breaks off or cannot be had for now,
// for as long as the context lasts: the bound on tries is for calls that have an end.
// A refusal that stands, or the context's end, is the last that comes.
func follow(ctx context.Context, c *Client, open func(lastEventID string) request) iter.Seq2[Followed, error] {
	return func(yield func(Followed, error) bool) {
		s := stream{comeAgain: comeAgain}
		patient := *c
		patient.retry.tries = 0
		for ctx.Err() == nil {
			err := s.read(ctx, &patient, open(s.lastEventID), yield)
			if errors.Is(err, errLeft) {
				return
			}
			if err != nil && ctx.Err() == nil {
				yield(Followed{}, err)
				return
			}
			// Not all clients of a service that has stopped come again at once.
			timer := time.NewTimer(s.comeAgain + rand.N(s.comeAgain/2+1))
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			timer.Stop()
		}
		yield(Followed{}, ctx.Err())
	}
}

// errLeft: the caller's loop has ended.
var errLeft = errors.New("left")

// stream is what is known of one over all its connections.
type stream struct {
	lastEventID string
	comeAgain   time.Duration
}

// read opens the stream once and gives its events. It returns nil when the stream has
// ended in whatever way that is mended by opening it again.
func (s *stream) read(ctx context.Context, c *Client, r request, yield func(Followed, error) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := c.stream(ctx, r, "text/event-stream")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	idle := time.AfterFunc(idleAfter, func() { cancel(errIdle) })
	defer idle.Stop()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxLine)
	id, data := s.lastEventID, ""
	for lines.Scan() {
		idle.Reset(idleAfter)
		if lines.Text() != "" {
			name, value, _ := strings.Cut(lines.Text(), ":")
			value = strings.TrimPrefix(value, " ")
			switch name {
			case "id":
				id = value
			case "data":
				data += value + "\n"
			case "retry":
				if ms, err := strconv.ParseUint(value, 10, 24); err == nil {
					s.comeAgain = time.Duration(ms) * time.Millisecond
				}
			}
			continue
		}
		s.lastEventID = id // with or without data
		if data == "" {
			continue
		}
		f := Followed{ID: id}
		if err := json.Unmarshal([]byte(data), &f.Event); err != nil {
			return fmt.Errorf("payments: an event that is not as the document says: %w", err)
		}
		data = ""
		idle.Stop() // the caller may take its time
		if !yield(f, nil) {
			return errLeft
		}
		idle.Reset(idleAfter)
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("payments: read the stream: %w", err)
	}
	return nil // an event that was cut off comes again
}
