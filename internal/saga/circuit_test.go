package saga

import (
	"testing"
	"testing/synctest"
	"time"
)

// A provider that is back and of whose answers some are unknown, as is usual, is
// called again after its first answer; until then one call at a time asks for it.
func TestTheCircuitClosesWithTheFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []bool
		c := newCircuit(time.Second, func(open bool) { changes = append(changes, open) })
		call := func() func(answered bool) {
			t.Helper()
			done, ok := c.allow()
			if !ok {
				t.Fatal("no call is let through")
			}
			return done
		}
		call()(true)
		for range tripAfter {
			if c.open() {
				t.Fatal("it opened too soon")
			}
			call()(false)
		}
		if _, ok := c.allow(); ok || !c.open() {
			t.Fatal("it did not open")
		}
		for range 3 { // the provider stays away
			<-time.After(time.Second + 1)
			if c.open() {
				t.Fatal("nothing asks for the provider after the pause")
			}
			probe := call()
			if _, ok := c.allow(); ok || !c.open() {
				t.Error("a second call goes out beside the one that asks")
			}
			probe(false)
			if !c.open() {
				t.Error("it closed without an answer")
			}
		}
		<-time.After(time.Second + 1)
		call()(true) // an answer, if no consent
		if c.open() {
			t.Error("it stays open after an answer")
		}
		for range tripAfter - 1 {
			call()(false)
		}
		call()(true)
		if c.open() {
			t.Error("it opens though there are answers in between")
		}
		if want := []bool{true, false, true, false, true, false, true, false, false}; len(changes) != len(want) {
			t.Errorf("it told of %v", changes)
		}
	})
}
