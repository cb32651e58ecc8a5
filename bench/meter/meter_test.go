package meter

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestACommandsNameMayHoldAnything(t *testing.T) {
	p, err := parseStat("42 (post) gres: R 1 2) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 10 5 20 0 1 0 99 0 0\n")
	if err != nil {
		t.Fatal(err)
	}
	if p.parent != 7 || p.used != 2150*time.Millisecond {
		t.Errorf("parent %d, used %s", p.parent, p.used)
	}
	if _, err := parseStat("42 (short) S 7"); err == nil {
		t.Error("a line without times was taken")
	}
}

func TestATreesTimeHasItsEndedChildren(t *testing.T) {
	roots := map[string]int{"us": os.Getpid()}
	before, err := ReadCPU(roots)
	if err != nil {
		t.Skip(err)
	}
	busy := exec.CommandContext(t.Context(), "sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
	if err := busy.Run(); err != nil {
		t.Fatal(err)
	}
	after, err := ReadCPU(roots)
	if err != nil {
		t.Fatal(err)
	}
	spent := busy.ProcessState.UserTime() + busy.ProcessState.SystemTime()
	if got := after.Sub(before)["us"]; got < spent-30*time.Millisecond { // both are rounded to ticks
		t.Errorf("the child used %s, and the tree %s", spent, got)
	}
	if _, err := ReadCPU(map[string]int{"nobody": 1 << 30}); err == nil {
		t.Error("a process that does not run has a time")
	}
}

func TestQuantilesAreOfEveryValue(t *testing.T) {
	var l Latencies
	if q := l.Quantiles(0.5); q[0] != 0 {
		t.Errorf("of nothing: %s", q[0])
	}
	for n := 100; n > 0; n-- {
		l.Add(time.Duration(n))
	}
	if q := l.Quantiles(0, 0.5, 0.99, 1); q[0] != 1 || q[1] != 51 || q[2] != 100 || q[3] != 100 || l.Count() != 100 {
		t.Errorf("%v of %d", q, l.Count())
	}
}

func TestCallsWithoutThoseOfAnIdleService(t *testing.T) {
	since := Calls{1: 5, 2: 7, 3: 9}.Sub(Calls{1: 5, 2: 3})
	if len(since) != 2 || since[2] != 4 || since[3] != 9 {
		t.Errorf("since: %v", since)
	}
	if rest := since.Without(Calls{3: 1}); rest.Sum() != 4 {
		t.Errorf("rest: %v", rest)
	}
}

func TestAProcessHasMemory(t *testing.T) {
	now, peak, err := Memory(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	if now < 1<<20 || peak < now {
		t.Errorf("now %d bytes, at most %d", now, peak)
	}
}
