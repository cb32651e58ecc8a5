package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"time"
)

// request is a call as the generated methods make it; it is sent once a try.
type request struct {
	method, path string
	query        url.Values
	header       http.Header
	body         any  // nil for none
	keyed        bool // takes an Idempotency-Key
}

// newRequest puts the values into the templates of the path, in order.
func newRequest(method, template string, values ...string) request {
	segments := strings.Split(template, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "{") {
			segments[i], values = url.PathEscape(values[0]), values[1:]
		}
	}
	return request{method: method, path: strings.Join(segments, "/"), query: url.Values{}, header: http.Header{}}
}

// addQuery leaves out what is a zero value, which no parameter of the service means
// anything by. A list is one value, separated by commas.
func (r *request) addQuery(name string, value any) {
	v := reflect.ValueOf(value)
	if v.IsZero() {
		return
	}
	if t, ok := value.(time.Time); ok {
		r.query.Set(name, t.Format(time.RFC3339Nano))
		return
	}
	if v.Kind() != reflect.Slice {
		r.query.Set(name, fmt.Sprint(value))
		return
	}
	texts := make([]string, v.Len())
	for i := range texts {
		texts[i] = fmt.Sprint(v.Index(i).Interface())
	}
	if len(texts) > 0 {
		r.query.Set(name, strings.Join(texts, ","))
	}
}

func (r *request) setHeader(name, value string) {
	if value != "" {
		r.header.Set(name, value)
	}
}

const headerKey = "Idempotency-Key"

// repeatable is whether the request does the same once and twice, so that it may be
// sent again when nobody answered: it reads, sets, removes, has a key, or is one of
// the merchant's actions, of which the document says so. What an operator does by
// hand is not repeated behind their back.
func (r *request) repeatable() bool {
	return r.method != http.MethodPost || r.keyed || !strings.HasPrefix(r.path, "/v1/ops/")
}

// prepare makes what stays the same over all tries.
func (c *Client) prepare(r *request) (body []byte, err error) {
	if r.body != nil {
		if body, err = json.Marshal(r.body); err != nil {
			return nil, fmt.Errorf("payments: encode the request: %w", err)
		}
		r.header.Set("Content-Type", "application/json")
	}
	if r.keyed && r.header.Get(headerKey) == "" {
		r.header.Set(headerKey, rand.Text())
	}
	if c.apiKey != "" {
		r.header.Set("Authorization", "Bearer "+c.apiKey)
	}
	r.header.Set("User-Agent", "payments-go")
	r.header.Set("Payments-Version", Version)
	return body, nil
}

// send makes one try; an answer that is no 2xx and no 304 is a *ProblemError, and
// one that does not come is a *NoAnswerError.
func (c *Client) send(ctx context.Context, r request, body []byte, try int) (*http.Response, error) {
	lost := func(err error) error { return &NoAnswerError{r.header.Get(headerKey), try, err} }
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	sent, err := http.NewRequestWithContext(ctx, r.method, c.base.String()+r.path, reader)
	if err != nil {
		return nil, fmt.Errorf("payments: make the request: %w", err)
	}
	sent.URL.RawQuery, sent.Header = r.query.Encode(), r.header.Clone()
	resp, err := c.http.Do(sent)
	if err != nil {
		return nil, lost(err)
	}
	if resp.StatusCode/100 == 2 || resp.StatusCode == http.StatusNotModified {
		return resp, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, lost(err)
	}
	p := problemOf(resp.StatusCode, resp.Header, b)
	p.IdempotencyKey, p.Tries = r.header.Get(headerKey), try
	return nil, p
}

// call gives the JSON of the answer.
func call[T any](ctx context.Context, c *Client, r request) (*Answer[T], error) {
	body, err := c.prepare(&r)
	if err != nil {
		return nil, err
	}
	r.header.Set("Accept", "application/json")
	return repeated(ctx, c, r, func(try int) (*Answer[T], error) {
		ctx, cancel := context.WithTimeout(ctx, tryTimeout)
		defer cancel()
		resp, err := c.send(ctx, r, body, try)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		a := &Answer[T]{Status: resp.StatusCode, Header: resp.Header, IdempotencyKey: r.header.Get(headerKey), Tries: try}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return nil, &NoAnswerError{a.IdempotencyKey, try, fmt.Errorf("read the answer: %w", err)}
		}
		if len(b) > 0 {
			if err := json.Unmarshal(b, &a.Value); err != nil {
				return nil, fmt.Errorf("payments: %d with a body that is not as the document says: %w", resp.StatusCode, err)
			}
		}
		return a, nil
	})
}

// stream gives an answer whose body has not been read yet. Until it begins the
// request is repeated as any other; after that it is the caller's.
func (c *Client) stream(ctx context.Context, r request, mediaType string) (*http.Response, error) {
	body, err := c.prepare(&r)
	if err != nil {
		return nil, err
	}
	r.header.Set("Accept", mediaType)
	return repeated(ctx, c, r, func(try int) (*http.Response, error) { return c.send(ctx, r, body, try) })
}

var errStuck = errors.New("payments: a page names itself as the next")

// pages gives the items of one page after another, from the cursor on.
func pages[T any](cursor string, page func(cursor string) (items []T, next string, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		for at := cursor; ; {
			items, next, err := page(at)
			if err != nil {
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			if next == at {
				yield(none, errStuck)
				return
			}
			at = next
		}
	}
}
