package api

import (
	"context"
	"encoding/csv"
	"errors"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
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

// formula is the begin of what a spreadsheet may take for a formula: a sign, in full width too,
// at the begin of a cell. Blanks and invisible characters before the sign do not count, and where
// cells are separated by semicolons a new cell begins at each.
var formula = regexp.MustCompile(`(^|;)([\s\p{Z}\p{Cf}]*[=+\-@\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}])`)

// cell keeps a spreadsheet from taking a text for a formula (OWASP, CSV injection).
// Numbers of ours are never negative.
func cell(s string) string {
	if s != "" && strings.ContainsRune("\t\r", rune(s[0])) {
		return "'" + s
	}
	return formula.ReplaceAllString(s, "$1'$2")
}
