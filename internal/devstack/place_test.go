package devstack

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// A port of the kernel's own range would, while its server is down, go to any
// client's outgoing connection, and the server could not come back on it.
func TestAPortIsNotOneOfOutgoingConnections(t *testing.T) {
	for range 50 {
		port, err := FreePort(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if port < firstPort || port > lastPort {
			t.Fatalf("port %d is not from %d to %d", port, firstPort, lastPort)
		}
	}
	file := filepath.Join(t.TempDir(), "port")
	chosen, err := choosePort(t.Context(), file, 0)
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := os.ReadFile(file); err != nil || string(kept) != strconv.Itoa(chosen) || chosen > lastPort {
		t.Errorf("chosen %d, kept %q, %v", chosen, kept, err)
	}
}

func TestAPortIsGivenOnce(t *testing.T) {
	port, err := FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := takeable(t.Context(), port); err != nil {
		t.Errorf("its owner cannot take it: %v", err)
	}
	if ReservePort(t.Context(), port) == nil {
		t.Errorf("port %d is given to another as well", port)
	}
}
