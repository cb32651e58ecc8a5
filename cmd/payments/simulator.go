package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v3"

	"payments/internal/api"
	"payments/internal/config"
	"payments/internal/provider/simulator"
	"payments/internal/telemetry"
)

func (e environment) simulatorCommand() *cli.Command {
	return &cli.Command{
		Name: "simulator", Usage: "run the payment provider's simulator",
		Description: about("A server of its own with a durable ledger, in the file that PAYMENTS_SIMULATOR_DATA names.", "PAYMENTS_SIMULATOR_DATA=ledger.db payments simulator"),
		Action:      alone(e.simulator),
	}
}

func (e environment) simulator(ctx context.Context, _ *cli.Command) error {
	c, err := config.LoadSimulator(e.lookup)
	if err != nil {
		return err
	}
	log := telemetry.NewLogger(e.stderr, c.Log.Level, c.Log.Format)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return fmt.Errorf("PAYMENTS_SIMULATOR_ADDR: %w", err)
	}
	sim, err := simulator.Open(c.Data, simulator.Config{
		Log: log, Registerer: prometheus.NewRegistry(), AuthorizationLifetime: c.AuthorizationLifetime,
		Webhook: simulator.Webhook{URL: c.WebhookURL, Secret: c.WebhookSecret},
	})
	if err != nil {
		return usagef("PAYMENTS_SIMULATOR_DATA: %w", errors.Join(err, listener.Close()))
	}
	// The write timeout is longer than the longest delay that a fault can ask for, 10 minutes.
	server := &http.Server{
		Handler: api.OnlyHosts(c.Hosts, sim.Handler()), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 11 * time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(api.NewServerLog(log), slog.LevelWarn),
	}
	log.InfoContext(ctx, "simulator serves", "addr", listener.Addr().String(), "ledger", c.Data)
	// The held requests end when the simulator closes, so it goes first.
	return serveUntil(ctx, server, listener, log, sim.Close)
}

// closeWithin bounds how long a server waits for requests in hand once it is told to stop. After
// it, connections that have not finished are closed: their clients did not send or do not read.
const closeWithin = 5 * time.Second

// serveUntil serves until ctx ends, runs before, lets the requests in hand finish, and closes
// what is then still open.
func serveUntil(ctx context.Context, s *http.Server, l net.Listener, log *slog.Logger, before func() error) error {
	failed := make(chan error, 1)
	go func() {
		if s.TLSConfig != nil {
			failed <- s.ServeTLS(l, "", "") // the certificate is the configuration's
			return
		}
		failed <- s.Serve(l)
	}()
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	if before != nil {
		err = errors.Join(err, before())
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
	defer cancel()
	closed := s.Shutdown(grace)
	if errors.Is(closed, context.DeadlineExceeded) {
		log.WarnContext(grace, "connections that did not finish are closed", "addr", l.Addr().String(), "waited", closeWithin.String())
		closed = s.Close()
	}
	return errors.Join(err, closed)
}
