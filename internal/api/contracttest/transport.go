package contracttest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
)

// Transport checks every answer that comes through it, and reports what is not as
// the document says.
type Transport struct {
	Versions Versions
	Base     http.RoundTripper
	Report   func(error)
}

func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.Base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		// It has no end to wait for, and no schema but its type's.
		if err := t.Versions.Check(r.Method, r.URL.EscapedPath(), resp.StatusCode, resp.Header, nil); err != nil {
			t.Report(err)
		}
		return resp, nil
	}
	body, readErr := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if readErr == nil {
		readErr = io.EOF
	}
	// As it would have come without us: what was read, and then the end or the error.
	resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), ending{readErr}))
	if !errors.Is(readErr, io.EOF) {
		return resp, nil
	}
	if r.Method != http.MethodHead && resp.Header.Get("Content-Encoding") == "gzip" {
		packed, err := gzip.NewReader(bytes.NewReader(body))
		if err == nil {
			body, err = io.ReadAll(packed)
		}
		if err != nil {
			t.Report(err)
		}
	}
	if err := t.Versions.Check(r.Method, r.URL.EscapedPath(), resp.StatusCode, resp.Header, body); err != nil {
		t.Report(err)
	}
	return resp, nil
}

type ending struct{ err error }

func (e ending) Read([]byte) (int, error) { return 0, e.err }
