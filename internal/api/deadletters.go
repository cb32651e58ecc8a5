package api

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"
	"github.com/go-json-experiment/json/jsontext"

	"payments/internal/inbox"
	"payments/internal/payment"
)

const (
	maxBlockedLimit = 100
	shownMessages   = 100  // of one key, at most
	maxPlainText    = 1000 // characters
)

// blockedKeyResource is a key that dead letters block. Messages counts all of them; Data holds
// the first ones when one key is asked for.
type blockedKeyResource struct {
	ID          string               `json:"id"`
	Object      string               `json:"object"`
	Consumer    string               `json:"consumer"`
	Topic       string               `json:"topic"`
	Key         string               `json:"key"`
	Fingerprint string               `json:"fingerprint"`
	Reason      string               `json:"reason"`
	Messages    int64                `json:"messages"`
	Replays     int                  `json:"replays"`
	BlockedAt   time.Time            `json:"parked_at"`
	Data        []deadLetterResource `json:"data,omitzero"`
}

// deadLetterResource shows the value as the JSON that it is, else in base64.
type deadLetterResource struct {
	Object      string            `json:"object"`
	Partition   int               `json:"partition"`
	Offset      int64             `json:"offset"`
	Headers     map[string]string `json:"headers"`
	Value       jsontext.Value    `json:"value"`
	ValueBase64 *string           `json:"value_base64"`
	Reason      string            `json:"reason"`
	StoredAt    time.Time         `json:"parked_at"`
}

type blockedGroupResource struct {
	Object      string    `json:"object"`
	Consumer    string    `json:"consumer"`
	Fingerprint string    `json:"fingerprint"`
	Reason      string    `json:"reason"`
	Keys        int64     `json:"keys"`
	Messages    int64     `json:"messages"`
	Oldest      time.Time `json:"oldest"`
}

type replayResource struct {
	ID        string  `json:"id"`
	Object    string  `json:"object"`
	Applied   int     `json:"applied"`
	Released  bool    `json:"released"`
	Remaining int64   `json:"remaining"`
	Reason    *string `json:"reason"` // of a new refusal
}

type discardResource struct {
	ID        string `json:"id"`
	Object    string `json:"object"`
	Released  bool   `json:"released"`
	Remaining int64  `json:"remaining"`
}

func newBlockedKeyResource(k inbox.BlockedKey) blockedKeyResource {
	return blockedKeyResource{
		ID: k.ID, Object: "parked_key", Consumer: k.Consumer, Topic: k.Topic, Key: legible(k.Key), Fingerprint: k.Fingerprint,
		Reason: k.Reason, Messages: k.Messages, Replays: k.Replays, BlockedAt: shown(k.BlockedAt),
	}
}

// legible is the bytes as text, or in base64 where they are none.
func legible(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return "base64:" + base64.StdEncoding.EncodeToString(b)
}

func newDeadLetterResource(m inbox.DeadLetter) deadLetterResource {
	r := deadLetterResource{
		Object: "parked_message", Partition: m.Partition, Offset: m.Offset, Headers: m.Headers, Reason: m.Reason, StoredAt: shown(m.StoredAt),
		Value: jsontext.Value("null"),
	}
	if v := jsontext.Value(m.Value); v.IsValid() {
		r.Value = v
	} else {
		text := base64.StdEncoding.EncodeToString(m.Value)
		r.ValueBase64 = &text
	}
	return r
}

func newReplayResource(r inbox.Replay) replayResource {
	shown := replayResource{ID: r.ID, Object: "parked_replay", Applied: r.Applied, Released: r.Released, Remaining: r.Remaining}
	if r.Reason != "" {
		shown.Reason = &r.Reason
	}
	return shown
}

func (s *server) listBlockedKeys(ctx context.Context, c *call) error {
	f := inbox.BlockedFilter{Consumer: c.query.Get("consumer"), Fingerprint: c.query.Get("fingerprint")}
	for name, value := range map[string]string{"consumer": f.Consumer, "fingerprint": f.Fingerprint} {
		if !plainText(value) || value == "" && c.query.Has(name) { // for the filter it would be none
			return queryError("/query/"+name, "text_invalid", "must be text")
		}
	}
	var err error
	if f.Limit, err = c.limit(maxBlockedLimit, maxBlockedLimit); err != nil {
		return err
	}
	cursor, err := s.after(c)
	if err != nil {
		return err
	}
	if len(cursor) > 0 {
		f.After = cursor[0]
	}
	page, err := s.DeadLetters.List(ctx, f)
	if errors.Is(err, inbox.ErrCursor) {
		return cursorInvalid()
	}
	if err != nil {
		return err
	}
	items := make([]blockedKeyResource, len(page.Keys))
	for i, k := range page.Keys {
		items[i] = newBlockedKeyResource(k)
	}
	l := newList(items)
	if l.HasMore = page.Next != ""; l.HasMore {
		l.NextCursor = s.behind(c, page.Next)
	}
	return s.ok(ctx, c, l)
}

// plainText is what Postgres takes for a text, of a length that a name may have.
func plainText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsRune(s, 0) && utf8.RuneCountInString(s) <= maxPlainText
}

func (s *server) groupBlockedKeys(ctx context.Context, c *call) error {
	groups, err := s.DeadLetters.Groups(ctx)
	if err != nil {
		return err
	}
	items := make([]blockedGroupResource, len(groups))
	for i, g := range groups {
		items[i] = newBlockedGroupResource(g)
	}
	return s.ok(ctx, c, newList(items))
}

func newBlockedGroupResource(g inbox.BlockedGroup) blockedGroupResource {
	return blockedGroupResource{
		Object: "parked_group", Consumer: g.Consumer, Fingerprint: g.Fingerprint, Reason: g.Reason,
		Keys: g.Keys, Messages: g.Messages, Oldest: shown(g.Oldest),
	}
}

func notBlocked(err error) error {
	if errors.Is(err, inbox.ErrNotBlocked) {
		return payment.Errorf(payment.CodeNotFound, "There is no such blocked key.").Because(err)
	}
	return err
}

func (s *server) getBlockedKey(ctx context.Context, c *call) error {
	id := chi.URLParam(c.r, "id")
	key, messages, err := s.DeadLetters.Show(ctx, id, shownMessages)
	if err != nil {
		return notBlocked(err)
	}
	r := newBlockedKeyResource(key)
	r.Data = make([]deadLetterResource, len(messages))
	for i, m := range messages {
		r.Data[i] = newDeadLetterResource(m)
	}
	return s.ok(ctx, c, r)
}

func (s *server) replayBlockedKey(ctx context.Context, c *call) error {
	id := chi.URLParam(c.r, "id")
	if err := c.decode(&struct{}{}); err != nil {
		return err
	}
	r, err := s.DeadLetters.Replay(ctx, id)
	if err != nil {
		return notBlocked(err)
	}
	return s.ok(ctx, c, newReplayResource(r))
}

// replayBlockedKeys answers what it came to within the request's time: what is
// left is replayed by the next request.
func (s *server) replayBlockedKeys(ctx context.Context, c *call) error {
	var q struct {
		Consumer    *string `json:"consumer"`    // optional
		Fingerprint *string `json:"fingerprint"` // optional
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	f := inbox.BlockedFilter{}
	for _, m := range []struct {
		from *string
		to   *string
		at   string
	}{{q.Consumer, &f.Consumer, "/consumer"}, {q.Fingerprint, &f.Fingerprint, "/fingerprint"}} {
		if m.from == nil {
			continue
		}
		if *m.from == "" || !plainText(*m.from) { // for the filter it would be none
			return invalid(m.at, "text_invalid", "must be text, and not empty")
		}
		*m.to = *m.from
	}
	all, err := s.DeadLetters.ReplayAll(ctx, f)
	if err != nil && (len(all) == 0 || ctx.Err() == nil) {
		return err
	}
	items := make([]replayResource, len(all))
	for i, r := range all {
		items[i] = newReplayResource(r)
	}
	return s.ok(ctx, c, newList(items))
}

func (s *server) discardDeadLetters(ctx context.Context, c *call) error {
	id := chi.URLParam(c.r, "id")
	var q struct {
		Reason *string `json:"reason"`
		Offset *int64  `json:"offset"` // of the key's first message; or
		All    *bool   `json:"all"`    // with the messages behind it
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	var f fields
	by := inbox.By{Operator: c.principal.KeyID, Holder: c.principal.Holder, Reason: take(&f, q.Reason, "/reason")}
	f.reason(q.Reason, "/reason")
	if all := q.All != nil && *q.All; !all {
		take(&f, q.Offset, "/offset")
	} else if q.Offset != nil {
		f = append(f, payment.FieldError{Pointer: "/offset", Code: "member_conflicting", Message: "cannot be beside all"})
	}
	if q.Offset != nil && *q.Offset < 0 {
		f = append(f, payment.FieldError{Pointer: "/offset", Code: "out_of_range", Message: "must not be negative"})
	}
	if err := f.err(); err != nil {
		return err
	}
	remaining, err := s.DeadLetters.Discard(ctx, id, by, q.Offset)
	if errors.Is(err, inbox.ErrNotFirst) {
		return payment.Errorf(payment.CodeDeadLetterMoved, "The message at this offset is not the key's first, or not any more.").Because(err)
	}
	if err != nil {
		return notBlocked(err)
	}
	return s.ok(ctx, c, discardResource{ID: id, Object: "parked_discard", Released: remaining == 0, Remaining: remaining})
}
