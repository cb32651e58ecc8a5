package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// streams answers with what is written, and then holds the connection, or cuts it.
func streams(written string, held bool) reply {
	return func(r *http.Request) (int, http.Header, io.Reader, error) {
		var end io.Reader = failing{}
		if held {
			end = holding{r.Context()}
		}
		return 200, http.Header{"Content-Type": {"text/event-stream"}}, io.MultiReader(strings.NewReader(written), end), nil
	}
}

type holding struct{ ctx context.Context }

func (h holding) Read([]byte) (int, error) {
	<-h.ctx.Done()
	return 0, h.ctx.Err()
}

// open can be read from for as long as its request lasts.
type open struct {
	ctx context.Context
	io.Reader
}

func (o open) Read(b []byte) (int, error) {
	if err := o.ctx.Err(); err != nil {
		return 0, err
	}
	return o.Reader.Read(b)
}

func event(id, paymentID string) string {
	return "id: " + id + "\nevent: payment.captured\ndata: {\"type\":\"payment.captured\",\ndata: \"data\":{\"payment_id\":\"" + paymentID + "\"}}\n\n"
}

// followed collects what comes until an error does.
func followed(ctx context.Context, c *Client, params *StreamEventsParams) (ids []string, err error) {
	for f, err := range c.StreamEvents(ctx, params) {
		if err != nil {
			return ids, err
		}
		ids = append(ids, f.ID+" "+f.Event.Data.PaymentID)
	}
	return ids, nil
}

func lastEventIDs(s *served) (ids []string) {
	for _, r := range s.seen {
		ids = append(ids, r.Header.Get("Last-Event-ID"))
	}
	return ids
}

func TestAStreamGoesOnBehindItsLastEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &served{answers: []reply{
			streams("retry: 4000\nid: begin\n\n"+event("1", "pay_1")+": a comment\r\n"+event("2", "pay_2")+event("3", "pay_3")[:40], false),
			cut, unavailable("9"), cut, cut, cut, cut, // a service that starts again takes longer than the tries of a call
			streams(event("3", "pay_3"), false),
			streams("id: 4\n\n", false), // the feed has gone on, with nothing for us
			says(410, `{"status": 410, "code": "events_expired"}`),
		}}
		ids, err := followed(t.Context(), speaking(t, s, WithTries(2)), nil)
		if CodeOf(err) != ProblemCodeEventsExpired || !slices.Equal(ids, []string{"1 pay_1", "2 pay_2", "3 pay_3"}) {
			t.Errorf("%v, %v", ids, err)
		}
		if got, want := lastEventIDs(s), []string{"", "2", "2", "2", "2", "2", "2", "2", "3", "4"}; !slices.Equal(got, want) {
			t.Errorf("the stream was opened behind %q, want %q", got, want)
		}
		if pause := s.at[1] - s.at[0]; pause < 4*time.Second || pause > 6*time.Second {
			t.Errorf("it was opened again after %s, and the service had asked for 4 s", pause)
		}
		if pause := s.at[3] - s.at[2]; pause < 9*time.Second {
			t.Errorf("it was opened again after %s, and the service had asked for 9 s", pause)
		}
	})
}

func TestAStreamWithoutAnythingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &served{answers: []reply{streams(event("1", "pay_1"), true), says(401, `{"status": 401, "code": "unauthenticated"}`)}}
		ids, err := followed(t.Context(), speaking(t, s), &StreamEventsParams{LastEventID: "0"})
		if CodeOf(err) != ProblemCodeUnauthenticated || len(ids) != 1 || !slices.Equal(lastEventIDs(s), []string{"0", "1"}) {
			t.Errorf("%v, %v, %q", ids, err, lastEventIDs(s))
		}
		if s.at[1] < idleAfter {
			t.Errorf("it was left after %s", s.at[1])
		}
	})
}

// Its caller may take longer over an event than a connection may be silent.
func TestASlowCallerKeepsItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &served{answers: []reply{func(r *http.Request) (int, http.Header, io.Reader, error) {
			return 200, http.Header{}, io.MultiReader(strings.NewReader(event("1", "pay_1")), open{r.Context(), strings.NewReader(event("2", "pay_2"))}), nil
		}}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := 0
		for _, err := range speaking(t, s).StreamEvents(ctx, nil) {
			if err != nil {
				t.Fatal(err)
			}
			<-time.After(10 * idleAfter)
			if n++; n == 2 {
				break
			}
		}
		if n != 2 || len(s.seen) != 1 {
			t.Errorf("%d events over %d connections", n, len(s.seen))
		}
	})
}

func TestAStreamEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, held := range []bool{true, false} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			s := &served{answers: []reply{streams(event("1", "pay_1"), held)}}
			began := time.Now()
			ids, err := followed(ctx, speaking(t, s), nil)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || len(ids) != 1 || time.Since(began) != time.Second {
				t.Errorf("held %v: %v, %v after %s", held, ids, err, time.Since(began))
			}
		}
	})
}

func TestAStreamThatCannotBeReadIsToldOf(t *testing.T) {
	for about, written := range map[string]string{
		"no JSON": "id: 1\ndata: <html>\n\n", "no end": "data: " + strings.Repeat("x", maxLine+1),
	} {
		s := &served{answers: []reply{streams(written, false)}}
		if ids, err := followed(t.Context(), speaking(t, s), nil); err == nil || len(ids) > 0 || len(s.seen) != 1 {
			t.Errorf("%s: %v, %v over %d connections", about, ids, err, len(s.seen))
		}
	}
}
