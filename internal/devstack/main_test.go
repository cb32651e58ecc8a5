package devstack

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childVariable names the directory of a Postgres that this test binary, run as a
// child, starts and never stops.
const childVariable = "DEVSTACK_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVariable); dir != "" {
		p, err := StartPostgres(context.Background(), PostgresConfig{Dir: dir})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(p.URL("postgres", "postgres"))
		_, _ = bufio.NewReader(os.Stdin).ReadByte() // until it is killed
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// eventually polls until the condition holds, and fails when it never does.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("it never came that %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}
