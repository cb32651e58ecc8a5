package simulator

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childLedger); path != "" {
		serveUntilKilled(path)
	}
	goleak.VerifyTestMain(m)
}
