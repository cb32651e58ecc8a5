package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/url"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v3"

	"payments/internal/access"
	"payments/internal/api"
	"payments/internal/config"
	"payments/internal/inbox"
	"payments/internal/payment"
	"payments/internal/telemetry"
)

// errRefusedAgain: what was replayed is blocked still; the output says why.
var errRefusedAgain = errors.New("a blocked key was refused again")

// shownMessages of a blocked key, at most.
const shownMessages = 100

func (e environment) deadLettersCommand() *cli.Command {
	narrow := func(flags ...cli.Flag) []cli.Flag {
		return append(flags,
			&cli.StringFlag{Name: "consumer", Usage: "keys of this consumer only: " + projector + " or " + webhooks},
			&cli.StringFlag{Name: "fingerprint", Usage: "keys with this fingerprint only"})
	}
	return &cli.Command{
		Name: "deadletters", Aliases: []string{"parked"}, Usage: "list, show, replay or discard events that could not be applied",
		Description: about("The keys whose events a consumer could not apply, and the events that wait behind them. `parked` is the former name.", "payments deadletters list -groups", "payments deadletters replay -all -fingerprint conflict"),
		Commands: []*cli.Command{
			{
				Name: "list", Usage: "list the keys, oldest first", Description: about("", "payments deadletters list", "payments deadletters list -groups"),
				Flags: reads(narrow(&cli.BoolFlag{Name: "groups", Usage: "one line an error"})...), Action: alone(e.withDeadLetters(e.listBlockedKeys)),
			},
			{
				Name: "show", Usage: "show one key with its first messages", ArgsUsage: "ID",
				Description: about("With its reason, headers and values.", "payments deadletters show prk_01m8702cxwf0xvsswam8j18mgk"), Flags: reads(), Action: e.withDeadLetters(e.readBlockedKey),
			},
			{
				Name: "replay", Usage: "apply the messages of keys again", ArgsUsage: "ID…",
				Description: about("Exit code 1 if a key is refused again.", "payments deadletters replay prk_01m8702cxwf0xvsswam8j18mgk", "payments deadletters replay -all -consumer payment_view"),
				Flags:       shows(narrow(&cli.BoolFlag{Name: "all", Usage: "all of them"})...), Action: e.withDeadLetters(e.replayBlockedKey),
			},
			{
				Name: "discard", Usage: "drop a message for good", ArgsUsage: "ID",
				Description: about(`Needs PAYMENTS_OPERATOR_KEY and the pepper: who decides is known. The message is named by its offset, so that
a repeated command takes no other.`, "payments deadletters discard -reason 'sent by a test' -offset 17 prk_01m8702cxwf0xvsswam8j18mgk"),
				Flags: shows(
					&cli.StringFlag{Name: "reason", Usage: "`WHY` it is never to be applied"},
					&cli.Int64Flag{Name: "offset", Usage: "of the key's first message, as `payments deadletters show` has it"},
					&cli.BoolFlag{Name: "all", Usage: "the first message and all behind it"}),
				Action: e.withDeadLetters(e.discardDeadLetters),
			},
		},
	}
}

type deadLettersAction func(ctx context.Context, c *cli.Command, letters *inbox.DeadLetters) error

func (e environment) withDeadLetters(do deadLettersAction) cli.ActionFunc {
	return func(ctx context.Context, c *cli.Command) error {
		if err := checkDeadLetters(c); err != nil {
			return err
		}
		if (c.Name == "list" || c.Name == "show") && e.overAPI(c) {
			return e.remoteBlockedKeys(ctx, c)
		}
		pool, err := e.openRead(ctx)
		if err != nil {
			return err
		}
		defer pool.Close()
		log := telemetry.NewLogger(e.stderr, slog.LevelWarn, "text")
		in, err := newInbox(pool, config.Config{}, log, prometheus.NewRegistry())
		if err != nil {
			return err
		}
		hooks, err := newWebhookInbox(pool, config.Config{}, log, prometheus.NewRegistry())
		if err != nil {
			return err
		}
		return do(ctx, c, inbox.NewDeadLetters(pool, in, hooks))
	}
}

// checkDeadLetters refuses before anything is opened.
func checkDeadLetters(c *cli.Command) error {
	switch c.Name {
	case "show", "discard":
		if _, err := oneArgument(c, "one blocked key"); err != nil {
			return err
		}
	case "replay":
		if c.Bool("all") == c.Args().Present() {
			return usagef("name the blocked keys to replay, or -all")
		}
	}
	if c.Name != "discard" {
		return nil
	}
	if c.IsSet("offset") == c.Bool("all") {
		return usagef("say which message by -offset, as `payments deadletters show` has it of the first, or -all")
	}
	if err := payment.CheckReason(c.String("reason")); err != nil {
		return usagef("-reason %w", err)
	}
	return nil
}

func blockedFilter(c *cli.Command) inbox.BlockedFilter {
	return inbox.BlockedFilter{Consumer: c.String("consumer"), Fingerprint: c.String("fingerprint")}
}

func (e environment) listBlockedKeys(ctx context.Context, c *cli.Command, letters *inbox.DeadLetters) error {
	if c.Bool("groups") {
		groups, err := letters.Groups(ctx)
		if err != nil {
			return err
		}
		all := listOf[api.BlockedGroup](nil)
		for _, g := range groups {
			all.Data = append(all.Data, api.ShowBlockedGroup(g))
		}
		return e.showBlockedGroups(c, all)
	}
	all := listOf[api.BlockedKey](nil)
	for f := blockedFilter(c); ; {
		page, err := letters.List(ctx, f)
		if err != nil {
			return err
		}
		for _, k := range page.Keys {
			all.Data = append(all.Data, api.ShowBlockedKey(k, nil))
		}
		if f.After = page.Next; page.Next == "" {
			break
		}
	}
	return e.showBlockedKeys(c, all)
}

// remoteBlockedKeys reads over HTTP.
func (e environment) remoteBlockedKeys(ctx context.Context, c *cli.Command) error {
	r, err := e.remote()
	if err != nil {
		return err
	}
	if c.Name == "show" {
		var key api.BlockedKey
		if err := r.get(ctx, "/v1/ops/parked/"+url.PathEscape(c.Args().First()), &key); err != nil {
			return err
		}
		return e.showBlockedKey(c, key)
	}
	if c.Bool("groups") {
		var groups listed[api.BlockedGroup]
		if err := r.get(ctx, "/v1/ops/parked/groups", &groups); err != nil {
			return err
		}
		return e.showBlockedGroups(c, groups)
	}
	query := url.Values{}
	for _, name := range []string{"consumer", "fingerprint"} {
		if value := c.String(name); value != "" {
			query.Set(name, value)
		}
	}
	all, err := getAll[api.BlockedKey](ctx, r, "/v1/ops/parked", query, math.MaxInt)
	if err != nil {
		return err
	}
	return e.showBlockedKeys(c, all)
}

func (e environment) showBlockedGroups(c *cli.Command, all listed[api.BlockedGroup]) error {
	return e.show(c, all, func(w io.Writer) {
		t := newTable(w, "CONSUMER", "FINGERPRINT", "KEYS", "MESSAGES", "OLDEST", "REASON")
		for _, g := range all.Data {
			t.row(g.Consumer, g.Fingerprint, g.Keys, g.Messages, age(g.Oldest), g.Reason)
		}
		_ = t.Flush()
	})
}

func (e environment) showBlockedKeys(c *cli.Command, all listed[api.BlockedKey]) error {
	return e.show(c, all, func(w io.Writer) {
		t := newTable(w, "ID", "CONSUMER", "KEY", "MESSAGES", "REPLAYS", "AGE", "FINGERPRINT", "REASON")
		for _, k := range all.Data {
			t.row(k.ID, k.Consumer, k.Key, k.Messages, k.Replays, age(k.BlockedAt), k.Fingerprint, k.Reason)
		}
		_ = t.Flush()
	})
}

func (e environment) readBlockedKey(ctx context.Context, c *cli.Command, letters *inbox.DeadLetters) error {
	key, messages, err := letters.Show(ctx, c.Args().First(), shownMessages)
	if err != nil {
		return err
	}
	return e.showBlockedKey(c, api.ShowBlockedKey(key, messages))
}

func (e environment) showBlockedKey(c *cli.Command, shown api.BlockedKey) error {
	return e.show(c, shown, func(w io.Writer) {
		t := newTable(w)
		t.row(shown.ID, fmt.Sprintf("key %s of %s, consumer %s, blocked %s ago: %d messages wait, %d replays", shown.Key, shown.Topic, shown.Consumer,
			age(shown.BlockedAt), shown.Messages, shown.Replays))
		t.row("", shown.Fingerprint+": "+shown.Reason)
		_ = t.Flush()
		for _, m := range shown.Data {
			fmt.Fprintf(w, "\npartition %d, offset %d: %s\n", m.Partition, m.Offset, brief(m.Reason))
			message := map[string]any{"headers": m.Headers, "value": m.Value}
			if m.ValueBase64 != nil {
				message = map[string]any{"headers": m.Headers, "value_base64": m.ValueBase64}
			}
			_ = json.MarshalWrite(w, message, jsontext.WithIndent("  "), json.Deterministic(true))
			fmt.Fprintln(w)
		}
	})
}

func (e environment) replayBlockedKey(ctx context.Context, c *cli.Command, letters *inbox.DeadLetters) error {
	var all []inbox.Replay
	var err error
	if c.Bool("all") {
		all, err = letters.ReplayAll(ctx, blockedFilter(c))
	}
	for _, id := range c.Args().Slice() {
		var r inbox.Replay
		if r, err = letters.Replay(ctx, id); err != nil {
			break
		}
		all = append(all, r)
	}
	refused := false
	shown := listOf[api.KeyReplay](nil)
	for _, r := range all {
		refused = refused || !r.Released
		shown.Data = append(shown.Data, api.ShowReplay(r))
	}
	err = errors.Join(err, e.show(c, shown, func(w io.Writer) {
		for _, r := range shown.Data {
			if r.Released {
				fmt.Fprintf(w, "%s: %d applied, released\n", r.ID, r.Applied)
				continue
			}
			fmt.Fprintf(w, "%s: %d applied, %d wait still: %s\n", r.ID, r.Applied, r.Remaining, brief(text(r.Reason)))
		}
	}))
	if err == nil && refused {
		return errRefusedAgain
	}
	return err
}

// discardDeadLetters needs, beside the database with the keys' events, PAYMENTS_OPERATOR_KEY and the
// pepper: who decides is known as it is for an act on a saga.
func (e environment) discardDeadLetters(ctx context.Context, c *cli.Command, letters *inbox.DeadLetters) error {
	id := c.Args().First()
	write, err := e.openWrite(ctx)
	if err != nil {
		return err
	}
	defer write.Close()
	who, err := e.operator(ctx, write, access.DeadLettersDiscard)
	if err != nil {
		return err
	}
	var offset *int64
	if c.IsSet("offset") {
		at := c.Int64("offset")
		offset = &at
	}
	remaining, err := letters.Discard(ctx, id, inbox.By{Operator: who.KeyID, Holder: who.Holder, Reason: c.String("reason")}, offset)
	if err != nil {
		return err
	}
	return e.show(c, api.ShowDiscard(id, remaining), func(w io.Writer) {
		fmt.Fprintf(w, "%s: discarded, %d wait still\n", id, remaining)
	})
}
