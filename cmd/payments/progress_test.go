package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestProgressIsABarOnATerminalAndLinesElsewhere(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		var out bytes.Buffer
		p := environment{stderr: &out, terminal: terminal}.progress("payments", 1000)
		now := p.begun
		p.now = func() time.Time { return now }
		p.at(1, "") // too soon after the beginning
		if out.Len() > 0 {
			t.Errorf("at once: %q", &out)
		}
		for n := int64(250); n <= 500; n += 250 {
			now = now.Add(10 * time.Second)
			p.at(n, "")
			p.at(n+1, "") // too soon after the one before
		}
		p.end()
		want := " 25 %  250 of 1000 payments, 25/s, 30s left\n 50 %  500 of 1000 payments, 25/s, 20s left\n"
		if terminal {
			want = "\r[#######                       ]  25 %  250 of 1000 payments, 25/s, 30s left\x1b[K" +
				"\r[###############               ]  50 %  500 of 1000 payments, 25/s, 20s left\x1b[K\r\x1b[K"
		}
		if out.String() != want {
			t.Errorf("%q, want %q", &out, want)
		}
	}
	var out bytes.Buffer
	p := environment{stderr: &out}.progress("rows", 0)
	p.now = func() time.Time { return p.begun.Add(time.Minute) }
	p.at(120, "payments.payment_method")
	if want := "120 rows, payments.payment_method, 2/s\n"; out.String() != want || strings.Contains(want, "left") {
		t.Errorf("%q", &out)
	}
}
