package api

import (
	"context"
	"encoding/csv"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// exportPage is how many rows an export holds in memory.
	exportPage = 1000
	// exportPageTimeout bounds the sending of one of its pages.
	exportPageTimeout = 30 * time.Second
)

// wantsCSV: the list is asked for with Accept: text/csv, and as JSON less, or not by name.
// A media type and not a path of its own: the filters, the permission, the limits and
// the path are the list's, and a browser could follow no link without the API key.
func (c *call) wantsCSV() bool {
	c.w.Header().Add("Vary", "Accept")
	var table, document, whatever float64
	for accepted := range strings.SplitSeq(strings.Join(c.r.Header.Values("Accept"), ","), ",") {
		mediaType, params, err := mime.ParseMediaType(accepted)
		if err != nil {
			continue
		}
		quality := 1.0
		if q, has := params["q"]; has {
			if quality, err = strconv.ParseFloat(q, 64); err != nil {
				continue
			}
		}
		switch mediaType {
		case "text/csv":
			table = max(table, quality)
		case "application/json":
			document = max(document, quality)
		case "application/*", "*/*":
			whatever = max(whatever, quality)
		}
	}
	return table > document && table >= whatever
}

// export streams every row of a list, page by page: page is called until it says that
// there is no more. No snapshot is held over the export (it would hold back vacuum and
// the relay), and the pages' order keeps each row once. Each page after the first costs
// a request of the caller's rate limit, and waits for it; and like a request it needs
// the API key to be one still, and a service that is not stopping.
//
// An error before the first row is a problem document. After it, the connection is cut:
// the body lacks its end, which every client reports.
func (s *server) export(c *call, name string, columns []string, page func(ctx context.Context) (rows [][]string, more bool, err error)) error {
	if c.query.Has("cursor") || c.query.Has("limit") {
		return queryError("/query", "parameter_unknown", "has cursor or limit, and an export is the whole list")
	}
	release, err := s.hold(c, heldExport)
	if err != nil {
		return err
	}
	defer release()
	next := func() ([][]string, bool, error) {
		ctx, cancel := context.WithTimeout(c.streaming, requestTimeout)
		defer cancel()
		return page(ctx)
	}
	rows, more, err := next()
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Content-Type", "text/csv; charset=utf-8; header=present")
	h.Set("Content-Disposition", `attachment; filename="`+name+`.csv"`)
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return nil
	}
	w, control := csv.NewWriter(c.w), http.NewResponseController(c.w)
	_ = w.Write(columns)
	for {
		if err := control.SetWriteDeadline(time.Now().Add(exportPageTimeout)); err != nil {
			s.cut(c, err)
		}
		for _, row := range rows {
			for i := range row {
				row[i] = cell(row[i])
			}
			_ = w.Write(row) // Error tells
		}
		if w.Flush(); w.Error() != nil {
			s.cut(c, w.Error())
		}
		if !more {
			return nil
		}
		if err := control.Flush(); err != nil {
			s.cut(c, err)
		}
		if err := s.limits.keys.wait(c.streaming, c.principal.KeyID); err != nil {
			s.cut(c, err)
		}
		if err := errors.Join(s.Streams.drained(), s.stillLive(c)); err != nil {
			s.cut(c, err)
		}
		if rows, more, err = next(); err != nil {
			s.cut(c, err)
		}
	}
}

func (s *server) stillLive(c *call) error {
	ctx, cancel := context.WithTimeout(c.streaming, requestTimeout)
	defer cancel()
	live, err := s.Authenticator.Live(ctx, []string{c.principal.KeyID})
	if err == nil && !live[c.principal.KeyID] {
		err = errStreamKey
	}
	return err
}

func (s *server) cut(c *call, err error) {
	s.Log.WarnContext(c.streaming, "export cut off", "request_id", c.w.requestID, "route", c.w.route, "error", err)
	panic(http.ErrAbortHandler)
}

// cell keeps a spreadsheet from taking a text for a formula (OWASP, CSV injection): one that begins
// with a sign. Blanks and characters that nobody sees do not count. Where cells are separated by
// semicolons or tabs, a new cell begins after each, and after each line break, quoted or not.
// Numbers of ours are never negative.
func cell(s string) string {
	if s != "" && strings.ContainsRune("\t\r", rune(s[0])) {
		return "'" + s
	}
	var b strings.Builder
	begins, copied := 0, 0 // of a cell; -1 once something else stands in it
	for i, r := range s {
		switch {
		case strings.ContainsRune(separators, r):
			begins = i + utf8.RuneLen(r)
		case begins < 0 || unseen(r):
		case strings.ContainsRune(signs, r):
			b.WriteString(s[copied:begins] + "'")
			begins, copied = -1, begins
		default:
			begins = -1
		}
	}
	return b.String() + s[copied:]
}

const (
	separators = ";\t\r\n\v\f\u0085\u2028\u2029"
	// Beside the four signs, what a spreadsheet may normalize to them: full width, small, raised,
	// lowered, and the minus of mathematics.
	signs = "=+-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u207c\u207a\u207b\u208c\u208a\u208b\u2212"
)

// unseen are blanks, controls, marks that belong to no letter, and letters without a form.
func unseen(r rune) bool {
	return unicode.In(r, unicode.Z, unicode.C, unicode.M) || strings.ContainsRune("\u115f\u1160\u2800\u3164\uffa0", r)
}
