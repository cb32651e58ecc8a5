package api

import (
	"encoding/base64"
	"encoding/binary"
	"net/url"
	"strconv"
	"strings"

	"payments/internal/payment"
)

// MAC makes and checks the authentication codes of cursors.
type MAC interface {
	MAC(data []byte) []byte
	Verify(mac, data []byte) bool
}

const (
	defaultPage = 20
	maxPage     = 100
)

func pageParameters() []string { return []string{"limit", "cursor"} }

// A cursor says where a page ended, and is the one mechanism of every list and stream: base64url
// of its fields and a MAC over them and over the list that they are of: its
// path, what the caller may see, and the query's filters and order. It is not a
// secret, and it grants nothing; the MAC is there so that a cursor can be trusted to be
// one that this list has given out, and a cursor of another list or filter is an error and
// not a page of something else. How long a page is, and what is told beside it, may
// change on the way.

// behind is the cursor of the page's end, made of what after will give back.
func (s *server) behind(c *call, cursor ...string) *string {
	payload := []byte(strings.Join(cursor, "\x00")) // no text of ours has a NUL
	mac := s.Cursors.MAC(c.cursorData(payload))
	text := base64.RawURLEncoding.EncodeToString(append(binary.AppendUvarint(nil, uint64(len(mac))), append(mac, payload...)...))
	return &text
}

// after is where the page begins; nil for a list's first.
func (s *server) after(c *call) ([]string, error) {
	if !c.query.Has("cursor") {
		return nil, nil
	}
	cursor, ok := s.readCursor(c, c.query.Get("cursor"))
	if !ok {
		return nil, cursorInvalid()
	}
	return cursor, nil
}

// readCursor returns what behind was given for the text, if it was of this list.
func (s *server) readCursor(c *call, text string) ([]string, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	length, n := binary.Uvarint(b)
	if err != nil || n <= 0 || length > uint64(len(b)-n) { //nolint:gosec // n is at most len(b)
		return nil, false
	}
	mac, payload := b[n:n+int(length)], b[n+int(length):] //nolint:gosec // below len(b)
	if !s.Cursors.Verify(mac, c.cursorData(payload)) {
		return nil, false
	}
	return strings.Split(string(payload), "\x00"), true
}

func cursorInvalid() error {
	return queryError("/query/cursor", "cursor_invalid", "must be the next_cursor of a page of this list, with the same filters and order")
}

// cursorData begins unlike anything else that the key is used for.
func (c *call) cursorData(payload []byte) []byte {
	list := url.Values{}
	for name, values := range c.query {
		switch name {
		case "cursor", "limit", "count", "expand":
		default:
			list[name] = values
		}
	}
	merchantID, all := c.scope.Merchant()
	data := []byte("cursor\x00")
	for _, part := range []string{c.r.URL.Path, merchantID, strconv.FormatBool(all), list.Encode(), string(payload)} {
		data = append(binary.AppendUvarint(data, uint64(len(part))), part...)
	}
	return data
}

// page reads the parameters of a list that is paged by the ids of its items;
// after is empty on the first page.
func (s *server) page(c *call, prefix string) (after string, limit int, err error) {
	if limit, err = c.limit(defaultPage, maxPage); err != nil {
		return "", 0, err
	}
	cursor, err := s.after(c)
	if err != nil || cursor == nil {
		return "", limit, err
	}
	if len(cursor) != 1 || !payment.ValidID(prefix, cursor[0]) {
		return "", 0, cursorInvalid()
	}
	return cursor[0], limit, nil
}

func (c *call) limit(otherwise, most int) (int, error) {
	if !c.query.Has("limit") {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(c.query.Get("limit"), 10, 16)
	if err != nil || n < 1 || n > uint64(most) { //nolint:gosec // a constant
		return 0, queryError("/query/limit", "out_of_range", "must be from 1 to "+strconv.Itoa(most))
	}
	return int(n), nil
}
