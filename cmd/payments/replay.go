package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"payments/internal/config"
	"payments/internal/payment"
	"payments/internal/readmodel"
	"payments/internal/telemetry"
)

const replayUsage = `payments replay payment_view [-accept-differences]
`

// replay rebuilds the read model from the write model while the service runs.
func replay(ctx context.Context, e environment) error {
	if len(e.args) == 0 || e.args[0] != projector {
		fmt.Fprint(e.stderr, replayUsage)
		return errors.New("name what to rebuild: " + projector)
	}
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	flags.SetOutput(e.stderr)
	flags.Usage = func() { fmt.Fprint(e.stderr, replayUsage) }
	accept := flags.Bool("accept-differences", false, "replace the live tables although they differ")
	if err := flags.Parse(e.args[1:]); err != nil {
		return err
	}
	if e.args = flags.Args(); e.noArguments() != nil {
		return e.noArguments()
	}
	c, err := config.LoadReplay(e.lookup)
	if err != nil {
		return err
	}
	write, err := openMigrated(ctx, "PAYMENTS_DATABASE_URL", c.DatabaseURL)
	if err != nil {
		return err
	}
	defer write.Close()
	owner, err := openMigrated(ctx, c.OwnerVariable, c.ReadOwnerURL)
	if err != nil {
		return err
	}
	defer owner.Close()
	log, err := newBroker(c.KafkaBrokers, c.KafkaPrefix, c.Kafka, nil)
	if err != nil {
		return err
	}
	defer log.Close()
	done, err := readmodel.Rebuild(ctx, readmodel.RebuildConfig{
		Write: write, Read: owner, Log: log, Topic: payment.Topic, Consumer: projector, Accept: *accept,
		Enter:  func(p readmodel.Phase) { fmt.Fprintf(e.stdout, "%s\n", p) },
		Logger: telemetry.NewLogger(e.stderr, slog.LevelWarn, "text"),
	})
	if errors.Is(err, readmodel.ErrRebuilding) {
		return err
	}
	return errors.Join(err, printRebuilt(e.stdout, done))
}

func printRebuilt(w io.Writer, r readmodel.Rebuilt) error {
	var b strings.Builder
	fmt.Fprintf(&b, "snapshot    %d payments, %d refunds, %d lines of timeline from the outbox and %d from the live table\n",
		r.Payments, r.Refunds, r.Lines, r.Kept)
	fmt.Fprintf(&b, "log         %d events\n", r.Applied)
	fmt.Fprintf(&b, "compared    %d payments: %d differ, %d were behind\n", r.Compared, r.Different, r.Behind)
	for _, d := range r.Differences {
		fmt.Fprintf(&b, "  %s of %s: %s\n", d.PaymentID, d.MerchantID, d.What)
	}
	if more := r.Different - int64(len(r.Differences)); more > 0 {
		fmt.Fprintf(&b, "  and %d more\n", more)
	}
	total := 0.0
	for _, p := range readmodel.Phases {
		if seconds, ok := r.Seconds[p]; ok {
			fmt.Fprintf(&b, "%-11s %.2f s\n", p, seconds)
			total += seconds
		}
	}
	verdict := "The live tables stay."
	if r.Swapped {
		verdict = "The new tables are live."
	}
	fmt.Fprintf(&b, "%.2f s in all, %d tries of the swap. %s\n", total, r.Tries, verdict)
	_, err := io.WriteString(w, b.String())
	return err
}
