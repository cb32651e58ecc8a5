package test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// Short forms run with `make test`; `make chaos` sets the long ones.
const (
	killsVariable  = "PAYMENTS_CHAOS_KILLS"  // of each kill test
	outageVariable = "PAYMENTS_CHAOS_OUTAGE" // how long the broker and Postgres are away, as 30s
	seedVariable   = "PAYMENTS_CHAOS_SEED"   // of the instants and the choices; random unless set
)

func kills(t *testing.T) int {
	t.Helper()
	return setting(t, killsVariable, 5, strconv.Atoi)
}

func outage(t *testing.T) time.Duration {
	t.Helper()
	return setting(t, outageVariable, 4*time.Second, time.ParseDuration)
}

// random prints its seed, with which the same choices are made again.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := setting(t, seedVariable, rand.Uint64(), func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) })
	t.Logf("%s=%d", seedVariable, seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func setting[T any](t *testing.T, name string, otherwise T, parse func(string) (T, error)) T {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	v, err := parse(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}
