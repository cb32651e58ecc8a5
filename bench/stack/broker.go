package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"payments/internal/devstack"
)

// RunBroker is the subcommand that Stack starts: the embedded broker of `payments demo` in a process
// of its own, until ctx ends. Its arguments are directory, port, health address and on or off for fsync.
func RunBroker(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return errors.New("broker: want DIRECTORY PORT HEALTH-ADDRESS on|off")
	}
	port, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	b, err := devstack.StartBroker(ctx, devstack.BrokerConfig{Dir: args[0], Port: port, Partitions: 6, Sync: args[3] == "on"})
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", args[2])
	if err != nil {
		return errors.Join(err, b.Stop())
	}
	health := &http.Server{
		ReadHeaderTimeout: time.Second,
		Handler:           http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), // 200
	}
	detach := context.AfterFunc(ctx, func() { _ = health.Close() })
	defer detach()
	if err := health.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return errors.Join(err, b.Stop())
	}
	return b.Stop()
}
