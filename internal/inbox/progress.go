package inbox

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Offset is where a consumer goes on in a partition: Next is the offset behind the
// last message that was taken in, or -1, and LastID that message's id, if it had
// one. A log that holds another message there is another log under the same name.
type Offset struct {
	Next   int64
	LastID string
}

// progress is a row of inbox_offsets: next is nil before the first message. Messages of
// the tried groups were in hand in attempts that have not ended well. The groups are in
// the order of their offsets, and no message that is still to come lies before them.
type progress struct {
	next  *int64
	last  *string // the id of the message before next
	tried []tries
}

// tries says that the messages [from, until) were in hand together so many times.
type tries struct {
	from, until int64
	attempts    int
}

func (p progress) stands() Offset {
	at := Offset{Next: -1}
	if p.next != nil {
		at.Next = *p.next
	}
	if p.last != nil {
		at.LastID = *p.last
	}
	return at
}

// group is the one that the message belongs to: of messages that were not in hand yet,
// one without attempts and end.
func (p progress) group(offset int64) tries {
	for _, g := range p.tried {
		if offset >= g.from && offset < g.until {
			return g
		}
	}
	return tries{from: offset, until: math.MaxInt64}
}

func (p progress) attemptsOf(offset int64) int { return p.group(offset).attempts }

// begin is the progress while the batch, of one group, is in hand.
func (p progress) begin(batch []Message) progress {
	first, end := batch[0].Offset, batch[len(batch)-1].Offset+1
	g := p.group(first)
	begun := progress{next: p.next, last: p.last, tried: []tries{{first, end, g.attempts + 1}}}
	if g.attempts == 0 {
		return begun
	}
	if end < g.until {
		begun.tried = append(begun.tried, tries{end, g.until, g.attempts})
	}
	for _, later := range p.tried {
		if later.from >= g.until {
			begun.tried = append(begun.tried, later)
		}
	}
	return begun
}

// passed is the progress when all up to and with m is taken in.
func (p progress) passed(m Message) progress {
	offset := m.Offset + 1
	g := progress{next: &offset}
	if id, ok := m.id(); ok {
		g.last = &id
	}
	if len(p.tried) > 0 && m.Offset < p.tried[0].from { // of another log, whose offsets begin anew
		return g
	}
	for _, t := range p.tried {
		if t.from = max(t.from, offset); t.from < t.until {
			g.tried = append(g.tried, t)
		}
	}
	return g
}

// failedAt is the progress when the message at offset, of the group that is in hand, has
// failed, and all before it is taken in, as passed says if there was any. The others of
// the group are beyond suspicion, since the process has lived.
func (p progress) failedAt(offset int64, passed progress) progress {
	failed := progress{next: passed.next, last: passed.last, tried: []tries{{offset, offset + 1, p.attemptsOf(offset)}}}
	failed.tried = append(failed.tried, p.tried[1:]...)
	return failed
}

// head and rest are what the columns hold.
func (p progress) head() tries {
	if len(p.tried) == 0 {
		return tries{}
	}
	return p.tried[0]
}

func (p progress) rest() string {
	if len(p.tried) < 2 {
		return "{}"
	}
	var numbers []string
	for _, g := range p.tried[1:] {
		numbers = append(numbers, fmt.Sprintf("%d,%d,%d", g.from, g.until, g.attempts))
	}
	return "{" + strings.Join(numbers, ",") + "}"
}

// triedOf reads the columns. A version before this one writes the first group alone,
// and the others may be of before that.
func triedOf(head tries, rest []int64) (tried []tries) {
	if head.attempts == 0 || head.from >= head.until {
		return nil
	}
	tried = []tries{head}
	for g := range slices.Chunk(rest, 3) {
		if len(g) < 3 || g[0] < tried[len(tried)-1].until || g[0] >= g[1] || g[2] < 1 {
			break
		}
		tried = append(tried, tries{g[0], g[1], int(g[2])})
	}
	return tried
}
