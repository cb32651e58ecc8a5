package audit

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/payment"
	"payments/internal/postgres"
)

const eventTopic = payment.Topic

// lag is how far a row of the read model may be behind what the model has applied.
const lag = time.Minute

// rowID is the primary key of a payment in both models, in the order of "C".
type rowID struct{ merchant, payment string }

func (r rowID) compare(o rowID) int {
	if c := strings.Compare(r.merchant, o.merchant); c != 0 {
		return c
	}
	return strings.Compare(r.payment, o.payment)
}

// state is a payment as one model shows it.
type state struct {
	rowID
	sequence int64
	order    string
	fields   []string // by columns
	lines    []string // of the timeline
	dropped  int64    // write model: the last event that retention has dropped
	newest   time.Time
}

func list(of func(column) string) string {
	all := make([]string, len(columns))
	for i, c := range columns {
		all[i] = "coalesce(" + of(c) + ", '')" // what is forged or lost may be null
	}
	return "ARRAY[" + strings.Join(all, ", ") + "]"
}

// readStates and writtenStates take a condition; that of a page is by the primary key.
func (a Audit) readStates(ctx context.Context, where string, args ...any) ([]state, error) {
	rows, err := a.Read.Query(ctx, `SELECT v.merchant_id, v.payment_id, v.sequence, v.order_id, `+list(func(c column) string { return c.read })+`, `+linesRead+`, 0::bigint, v.updated_at
		FROM payment_view v WHERE `+where, args...)
	return collect(rows, err, "the read model")
}

func (a Audit) writtenStates(ctx context.Context, where string, args ...any) ([]state, error) {
	rows, err := a.Write.Query(ctx, `SELECT p.merchant_id, p.id, o.sequence, o.id, `+list(func(c column) string { return c.written })+`, `+linesWritten+`,
		coalesce((SELECT d.sequence FROM outbox_dropped d WHERE d.key = o.id), 0), greatest(o.created_at, o.updated_at)
		FROM payments p JOIN orders o ON o.merchant_id = p.merchant_id AND o.id = p.order_id WHERE `+where, args...)
	return collect(rows, err, "the write model")
}

func collect(rows pgx.Rows, err error, of string) ([]state, error) {
	if err == nil {
		var all []state
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (s state, err error) {
			return s, row.Scan(&s.merchant, &s.payment, &s.sequence, &s.order, &s.fields, &s.lines, &s.dropped, &s.newest)
		})
		if err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read %s: %w", of, err)
}

// pair is a payment in both models; either may be missing.
type pair struct{ read, written *state }

// compareViews walks both models by the primary key. Of each page the read model is read
// first: what the write model says is then further on. A difference is looked at again.
func (a Audit) compareViews(ctx context.Context) ([]Finding, error) {
	f := Finding{Invariant: 8, Name: "a read-model row equals the write model"}
	applied, err := a.applied(ctx)
	if err != nil {
		return nil, err
	}
	var after rowID
	for more := true; more; {
		var page []pair
		if page, after, more, err = a.pageOfBoth(ctx, after); err != nil {
			return nil, err
		}
		differ := map[rowID]pair{}
		for _, p := range page {
			if p.read != nil {
				f.Counted++
			}
			if a.difference(p, applied) != "" {
				differ[p.id()] = p
			}
		}
		if err := a.lookAgain(ctx, &f, differ, applied); err != nil {
			return nil, err
		}
		a.done(f.Name, f.Counted)
	}
	return []Finding{f}, nil
}

func (p pair) id() rowID {
	if p.read != nil {
		return p.read.rowID
	}
	return p.written.rowID
}

// applied is the newest event that the read model has applied.
func (a Audit) applied(ctx context.Context) (at time.Time, err error) {
	err = postgres.InTx(ctx, a.Read, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0`); err != nil { // it reads the whole table
			return err
		}
		return tx.QueryRow(ctx, `SELECT coalesce(max(updated_at), 'epoch') FROM payment_view WHERE updated_at < now() + interval '1 hour'`).Scan(&at)
	})
	if err != nil {
		return at, fmt.Errorf("read the read model: %w", err)
	}
	return at, nil
}

// pageOfBoth ends where the shorter reach of both models' pages does.
func (a Audit) pageOfBoth(ctx context.Context, after rowID) (page []pair, next rowID, more bool, err error) {
	read, err := a.readStates(ctx, `(v.merchant_id, v.payment_id) > ($1, $2) ORDER BY v.merchant_id, v.payment_id LIMIT $3`, after.merchant, after.payment, pageSize)
	if err != nil {
		return nil, after, false, err
	}
	written, err := a.writtenStates(ctx, `(p.merchant_id, p.id) > ($1, $2) ORDER BY p.merchant_id, p.id LIMIT $3`, after.merchant, after.payment, pageSize)
	if err != nil {
		return nil, after, false, err
	}
	until := func(s []state) {
		if len(s) < pageSize {
			return
		}
		if last := s[len(s)-1].rowID; !more || last.compare(next) < 0 {
			next, more = last, true
		}
	}
	until(read)
	until(written)
	in := func(s []state) bool { return len(s) > 0 && (!more || s[0].compare(next) <= 0) }
	for in(read) || in(written) {
		var p pair
		switch {
		case !in(written) || in(read) && read[0].compare(written[0].rowID) < 0:
			p.read, read = &read[0], read[1:]
		case !in(read) || written[0].compare(read[0].rowID) < 0:
			p.written, written = &written[0], written[1:]
		default:
			p = pair{&read[0], &written[0]}
			read, written = read[1:], written[1:]
		}
		page = append(page, p)
	}
	return page, next, more, nil
}

// difference says what is wrong, or nothing. A row that is behind is not compared: the
// write model does not say any more what it said at that sequence.
func (a Audit) difference(p pair, applied time.Time) string {
	switch {
	case p.written == nil:
		return "is in the read model only"
	case p.read == nil && (a.Settled || p.written.newest.Before(applied.Add(-lag))):
		return "is not in the read model"
	case p.read == nil:
		return ""
	case p.read.sequence > p.written.sequence:
		return fmt.Sprintf("is at %d in the read model, at %d in the write model", p.read.sequence, p.written.sequence)
	case p.read.sequence < p.written.sequence && (a.Settled || p.written.newest.Before(applied.Add(-lag))):
		return fmt.Sprintf("is at %d of %d in the read model", p.read.sequence, p.written.sequence)
	}
	var wrong []string
	if p.read.sequence == p.written.sequence {
		for i, c := range columns {
			if p.read.fields[i] != p.written.fields[i] {
				wrong = append(wrong, fmt.Sprintf("%s %.200q is written, %.200q is read", c.name, p.written.fields[i], p.read.fields[i]))
			}
		}
	}
	if wrong = append(wrong, timelines(p)...); len(wrong) > 0 {
		return fmt.Sprintf("differs at sequence %d: %s", p.read.sequence, strings.Join(wrong, "; "))
	}
	return ""
}

func sequenceOf(line string) int64 {
	number, _, _ := strings.Cut(line, " ")
	n, _ := strconv.ParseInt(number, 10, 64) // the database wrote it
	return n
}

// timelines compares the lines up to the row's sequence with the events that the outbox has.
func timelines(p pair) (wrong []string) {
	lines := map[int64]string{}
	for _, l := range p.read.lines {
		lines[sequenceOf(l)] = l
	}
	for _, event := range p.written.lines {
		n := sequenceOf(event)
		switch line, ok := lines[n]; {
		case n > p.read.sequence && !ok:
		case !ok:
			wrong = append(wrong, fmt.Sprintf("timeline: event %d is missing", n))
		case line != event:
			wrong = append(wrong, fmt.Sprintf("timeline: %q is written, %q is read", event, line))
		}
		delete(lines, n)
	}
	for n := range lines {
		if n > p.written.dropped {
			wrong = append(wrong, fmt.Sprintf("timeline: there is no event %d", n))
		}
	}
	slices.Sort(wrong)
	return wrong
}

// lookAgain reports the differences that last while neither model moves.
func (a Audit) lookAgain(ctx context.Context, f *Finding, differ map[rowID]pair, applied time.Time) error {
	for look := 0; len(differ) > 0 && look < maxLooks; look++ {
		if f.full() {
			f.Unnamed += int64(len(differ))
			return nil
		}
		if err := a.wait(ctx); err != nil {
			return err
		}
		again, err := a.pairs(ctx, differ)
		if err != nil {
			return err
		}
		for id, before := range differ {
			now := again[id]
			what := ""
			if now != (pair{}) {
				what = a.difference(now, applied)
			}
			switch {
			case what == "":
				delete(differ, id)
			case sequence(before.read) == sequence(now.read) && sequence(before.written) == sequence(now.written):
				delete(differ, id)
				if blocked, err := a.blocked(ctx, now); err != nil {
					return err
				} else if !blocked {
					f.violate("%s %s", id.payment, what)
				}
			default:
				differ[id] = now
			}
		}
	}
	return nil
}

func sequence(s *state) int64 {
	if s == nil {
		return 0
	}
	return s.sequence
}

func (a Audit) pairs(ctx context.Context, of map[rowID]pair) (map[rowID]pair, error) {
	merchants, payments := make([]string, 0, len(of)), make([]string, 0, len(of))
	for id := range of {
		merchants, payments = append(merchants, id.merchant), append(payments, id.payment)
	}
	const these = `(SELECT m, p FROM unnest($1::text[], $2::text[]) AS these (m, p))`
	read, err := a.readStates(ctx, `(v.merchant_id, v.payment_id) IN `+these, merchants, payments)
	if err != nil {
		return nil, err
	}
	written, err := a.writtenStates(ctx, `(p.merchant_id, p.id) IN `+these, merchants, payments)
	if err != nil {
		return nil, err
	}
	all := map[rowID]pair{}
	for i := range read {
		all[read[i].rowID] = pair{read: &read[i]}
	}
	for i := range written {
		all[written[i].rowID] = pair{all[written[i].rowID].read, &written[i]}
	}
	return all, nil
}

// blocked reports that the row is behind because an event of its key waits for an operator,
// who has an alert of that.
func (a Audit) blocked(ctx context.Context, p pair) (blocked bool, err error) {
	if p.written == nil || sequence(p.read) >= p.written.sequence {
		return false, nil
	}
	if err := a.Read.QueryRow(ctx, `SELECT EXISTS (SELECT FROM inbox_parked_keys WHERE key = convert_to($1, 'UTF8'))`, p.written.order).Scan(&blocked); err != nil {
		return false, fmt.Errorf("read the blocked keys: %w", err)
	}
	return blocked, nil
}
