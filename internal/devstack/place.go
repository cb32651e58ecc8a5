package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// lockFile holds a lock that the kernel releases when this process ends.
func lockFile(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = fmt.Errorf("another running process uses %s", filepath.Dir(path))
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
	free, err := freePort(ctx, port)
	if err != nil && want == 0 {
		free, err = freePort(ctx, 0)
	}
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(file, []byte(strconv.Itoa(free)), 0o600); err != nil {
		return 0, fmt.Errorf("keep the port: %w", err)
	}
	return free, nil
}

func freePort(ctx context.Context, port int) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close() //nolint:errcheck,forcetypeassert // a TCP listener has no other
}
