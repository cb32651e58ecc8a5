package audit

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestASpoolSortsMoreThanItHolds(t *testing.T) {
	s := newSpool(t.TempDir())
	defer s.close()
	s.most = 4096
	random := rand.New(rand.NewPCG(1, 2))
	want := map[string]string{}
	for n := range 5000 {
		key := fmt.Sprintf("k%04d", random.IntN(1000))
		want[key] += fmt.Sprint(n, " ")
		if err := s.add(key, []byte(fmt.Sprint(n, " "))); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.runs) < 10 {
		t.Errorf("%d runs", len(s.runs))
	}
	m, err := s.sorted()
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	for {
		if _, ok := m.peek(); !ok {
			break
		}
		key, values, err := m.take()
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, v := range values {
			got += string(v)
		}
		if key <= last || got != want[key] {
			t.Fatalf("%s after %s: %s, want %s", key, last, got, want[key])
		}
		delete(want, key)
		last = key
	}
	if len(want) > 0 {
		t.Errorf("%d keys are missing", len(want))
	}
}
