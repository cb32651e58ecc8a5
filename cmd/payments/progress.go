package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	barWidth    = 30
	barEvery    = 100 * time.Millisecond
	linesEvery  = 10 * time.Second // where nobody sees a bar
	clearToEnd  = "\x1b[K"
	startOfLine = "\r"
)

// progress of long work, on stderr: a bar on a terminal, else now and then a line. It is
// its own, since one line is all of it. For one goroutine at a time.
type progress struct {
	w           io.Writer
	terminal    bool
	what        string
	total       int64 // 0: not known
	now         func() time.Time
	begun, told time.Time
	drawn       bool
}

// progress of as many things as total; 0 is not known.
func (e environment) progress(what string, total int64) *progress {
	p := &progress{w: e.stderr, terminal: e.terminal, what: what, total: total, now: time.Now}
	p.begun = p.now()
	p.told = p.begun
	return p
}

// at says that n things are done, or that n were of the part that the note names.
func (p *progress) at(n int64, note string) {
	now, every := p.now(), linesEvery
	if p.terminal {
		every = barEvery
	}
	if now.Sub(p.told) < every {
		return
	}
	p.told = now
	if line := p.line(n, note, now.Sub(p.begun)); p.terminal {
		p.drawn = true
		fmt.Fprint(p.w, startOfLine+line+clearToEnd)
	} else {
		fmt.Fprintln(p.w, line)
	}
}

// end takes the bar away.
func (p *progress) end() {
	if p.drawn {
		fmt.Fprint(p.w, startOfLine+clearToEnd)
		p.drawn = false
	}
}

func (p *progress) line(n int64, note string, took time.Duration) string {
	var b strings.Builder
	if p.total > 0 {
		part := min(float64(n)/float64(p.total), 1)
		if p.terminal {
			full := int(part * barWidth)
			fmt.Fprintf(&b, "[%s%s] ", strings.Repeat("#", full), strings.Repeat(" ", barWidth-full))
		}
		fmt.Fprintf(&b, "%3.0f %%  %d of %d %s", part*100, n, p.total, p.what)
	} else {
		fmt.Fprintf(&b, "%d %s", n, p.what)
	}
	if note != "" {
		b.WriteString(", " + note)
	}
	if rate := float64(n) / took.Seconds(); n > 0 && took > time.Second {
		fmt.Fprintf(&b, ", %.0f/s", rate)
		if left := p.total - n; left > 0 {
			fmt.Fprintf(&b, ", %s left", time.Duration(float64(left)/rate*float64(time.Second)).Round(time.Second))
		}
	}
	return b.String()
}
