package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Lock gives the directory to this process until the lock is closed. The kernel
// releases it when the process ends.
func Lock(dir string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = fmt.Errorf("another running process uses %s", dir)
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// choosePort is want, which must be free; or for 0 the one kept in the file when it
// is free, else any free one. The choice is kept in the file.
func choosePort(ctx context.Context, file string, want int) (int, error) {
	port := want
	if want == 0 {
		kept, _ := os.ReadFile(file) // without it any port will do
		port, _ = strconv.Atoi(strings.TrimSpace(string(kept)))
	}
	free, err := port, error(nil)
	if port != 0 {
		err = takeable(ctx, port)
	}
	if port == 0 || err != nil && want == 0 {
		free, err = FreePort(ctx)
	}
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(file, []byte(strconv.Itoa(free)), 0o600); err != nil {
		return 0, fmt.Errorf("keep the port: %w", err)
	}
	return free, nil
}

// Below them are ports of well-known services, above them those that Linux (by
// default) and others hand to outgoing connections.
const firstPort, lastPort = 10_000, 32_767

// FreePort of 127.0.0.1 on which a server can be stopped and started again: while
// it is down, no outgoing connection gets its port, as would happen sooner or later
// with one that the kernel chose, and be it to a client that tries to reach the server.
// Nor does another caller get it for as long as this process lives.
func FreePort(ctx context.Context) (int, error) {
	var err error
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort+1) //nolint:gosec // any will do
		if err = ReservePort(ctx, port); err == nil {
			return port, nil
		}
	}
	return 0, err
}

// reserved are UDP sockets, which nobody here needs: each holds the TCP port of its
// number for a server that is not up (yet, or any more).
var reserved struct {
	mu      sync.Mutex
	sockets []net.PacketConn
}

// ReservePort of 127.0.0.1, which must be free, as FreePort does with the one that it chooses:
// no other process that reserves its ports gets it, also before the server is up.
func ReservePort(ctx context.Context, port int) error {
	socket, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("find a free port: %w", err)
	}
	if err := takeable(ctx, port); err != nil {
		return errors.Join(err, socket.Close())
	}
	reserved.mu.Lock()
	defer reserved.mu.Unlock()
	reserved.sockets = append(reserved.sockets, socket)
	return nil
}

func takeable(ctx context.Context, port int) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("find a free port: %w", err)
	}
	return l.Close()
}
