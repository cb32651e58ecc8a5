package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"payments/internal/config"
	"payments/internal/payment"
	"payments/internal/readmodel"
	"payments/internal/telemetry"
)

func (e environment) replayCommand() *cli.Command {
	return &cli.Command{
		Name: "replay", Usage: "rebuild the read model from the write model, while the service runs", ArgsUsage: projector,
		Description: about("Exit code 1, and nothing is replaced, if the live read model differs.", "payments replay payment_view", "payments replay payment_view -accept-differences"),
		Flags:       shows(&cli.BoolFlag{Name: "accept-differences", Usage: "replace the live tables although they differ"}),
		Action:      e.replay,
	}
}

// replay rebuilds the read model from the write model while the service runs.
func (e environment) replay(ctx context.Context, cmd *cli.Command) error {
	if cmd.NArg() != 1 || cmd.Args().First() != projector {
		return usagef("%s: name what to rebuild: %s", cmd.FullName(), projector)
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
	bar := e.progress("phases", int64(len(readmodel.Phases)))
	done, err := readmodel.Rebuild(ctx, readmodel.RebuildConfig{
		Write: write, Read: owner, Log: log, Topic: payment.Topic, Consumer: projector, Accept: cmd.Bool("accept-differences"),
		Enter: func(p readmodel.Phase) {
			switch {
			case e.terminal:
				bar.told = time.Time{} // each is drawn
				bar.at(int64(slices.Index(readmodel.Phases, p)), string(p))
			case !asJSON(cmd):
				fmt.Fprintf(e.stdout, "%s\n", p)
			}
		},
		Logger: telemetry.NewLogger(e.stderr, slog.LevelWarn, "text"),
	})
	bar.end()
	if errors.Is(err, readmodel.ErrRebuilding) {
		return err
	}
	return errors.Join(err, e.show(cmd, showRebuilt(done), func(w io.Writer) { printRebuilt(w, done) }))
}

type rebuiltShown struct {
	Object      string             `json:"object"`
	Payments    int64              `json:"payments"`
	Refunds     int64              `json:"refunds"`
	Lines       int64              `json:"timeline_from_outbox"`
	Kept        int64              `json:"timeline_from_live"`
	Events      int64              `json:"events"`
	Compared    int64              `json:"compared"`
	Behind      int64              `json:"behind"`
	Different   int64              `json:"different"`
	Differences []rebuiltDiffers   `json:"differences"` // the first hundred
	Seconds     map[string]float64 `json:"seconds"`     // by phase
	Tries       int                `json:"tries"`
	Replaced    bool               `json:"replaced"`
}

type rebuiltDiffers struct {
	Merchant string `json:"merchant"`
	Payment  string `json:"payment"`
	What     string `json:"what"`
}

func showRebuilt(r readmodel.Rebuilt) rebuiltShown {
	s := rebuiltShown{
		Object: "rebuild", Payments: r.Payments, Refunds: r.Refunds, Lines: r.Lines, Kept: r.Kept, Events: r.Applied, Compared: r.Compared, Behind: r.Behind,
		Different: r.Different, Differences: []rebuiltDiffers{}, Seconds: map[string]float64{}, Tries: r.Tries, Replaced: r.Swapped,
	}
	for _, d := range r.Differences {
		s.Differences = append(s.Differences, rebuiltDiffers{d.MerchantID, d.PaymentID, d.What})
	}
	for p, seconds := range r.Seconds {
		s.Seconds[fmt.Sprint(p)] = seconds
	}
	return s
}

func printRebuilt(w io.Writer, r readmodel.Rebuilt) {
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
	_, _ = io.WriteString(w, b.String())
}
