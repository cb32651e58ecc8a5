package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/access"
	"payments/internal/config"
	"payments/internal/inbox"
	"payments/internal/telemetry"
)

const parkedUsage = `payments parked list [-consumer NAME] [-fingerprint F] [-groups]
payments parked show ID
payments parked replay ID… | -all [-consumer NAME] [-fingerprint F]
payments parked discard -reason WHY -offset N | -all ID
`

// errRefusedAgain: what was replayed is parked still; the output says why.
var errRefusedAgain = errors.New("a parked key was refused again")

// parkedCommand is one verb with what its flags say.
type parkedCommand struct {
	environment
	parked      *inbox.Parked
	ids         []string
	filter      inbox.ParkedFilter
	all, groups bool
	offset      *int64 // nil with -all
	reason      string
}

var parkedVerbs = map[string]func(parkedCommand, context.Context) error{
	"list": parkedCommand.list, "show": parkedCommand.show, "replay": parkedCommand.replay, "discard": parkedCommand.discard,
}

// runParked shows and moves the keys whose events could not be applied.
func runParked(ctx context.Context, e environment) error {
	if len(e.args) == 0 || parkedVerbs[e.args[0]] == nil {
		fmt.Fprint(e.stderr, parkedUsage)
		return errors.New("name one of " + strings.Join(slices.Sorted(maps.Keys(parkedVerbs)), ", "))
	}
	c := parkedCommand{environment: e}
	flags := flag.NewFlagSet("parked "+e.args[0], flag.ContinueOnError)
	flags.SetOutput(e.stderr)
	flags.Usage = func() { fmt.Fprint(e.stderr, parkedUsage) }
	flags.StringVar(&c.filter.Consumer, "consumer", "", "keys of this consumer only")
	flags.StringVar(&c.filter.Fingerprint, "fingerprint", "", "keys with this fingerprint only")
	flags.BoolVar(&c.groups, "groups", false, "one line an error")
	flags.BoolVar(&c.all, "all", false, "all of them")
	flags.Func("offset", "of the key's first message", func(s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		c.offset = &n
		return err
	})
	flags.StringVar(&c.reason, "reason", "", "why it is never to be applied")
	if err := flags.Parse(e.args[1:]); err != nil {
		return err
	}
	c.ids = flags.Args()
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
	c.parked = inbox.NewParked(pool, in, hooks)
	return parkedVerbs[e.args[0]](c, ctx)
}

func (c parkedCommand) list(ctx context.Context) error {
	if len(c.ids) > 0 {
		return fmt.Errorf("unexpected argument %q", c.ids[0])
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	if c.groups {
		groups, err := c.parked.Groups(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintln(w, "CONSUMER\tFINGERPRINT\tKEYS\tMESSAGES\tOLDEST\tREASON")
		for _, g := range groups {
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\n", g.Consumer, g.Fingerprint, g.Keys, g.Messages, age(g.Oldest), brief(g.Reason))
		}
		return w.Flush()
	}
	fmt.Fprintln(w, "ID\tCONSUMER\tKEY\tMESSAGES\tREPLAYS\tAGE\tFINGERPRINT\tREASON")
	for {
		page, err := c.parked.List(ctx, c.filter)
		if err != nil {
			return err
		}
		for _, k := range page.Keys {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", k.ID, k.Consumer, brief(string(k.Key)), k.Messages, k.Replays, age(k.ParkedAt),
				k.Fingerprint, brief(k.Reason))
		}
		if c.filter.After = page.Next; page.Next == "" {
			return w.Flush()
		}
	}
}

func age(t time.Time) string { return time.Since(t).Round(time.Second).String() }

// brief is one line, without what a terminal would obey.
func brief(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, line)
}

func (c parkedCommand) oneID() (string, error) {
	if len(c.ids) != 1 {
		return "", fmt.Errorf("name one parked key, not %d", len(c.ids))
	}
	return c.ids[0], nil
}

// show prints a JSON document with the first 100 messages.
func (c parkedCommand) show(ctx context.Context) error {
	id, err := c.oneID()
	if err != nil {
		return err
	}
	key, messages, err := c.parked.Show(ctx, id, 100)
	if err != nil {
		return err
	}
	type message struct {
		Partition int
		Offset    int64
		Reason    string
		ParkedAt  time.Time
		Headers   map[string]string
		Value     any
	}
	shown := struct {
		ID, Consumer, Topic, Fingerprint, Key string
		Waiting                               int64
		Replays                               int
		ParkedAt                              time.Time
		Messages                              []message
	}{key.ID, key.Consumer, key.Topic, key.Fingerprint, string(key.Key), key.Messages, key.Replays, key.ParkedAt, nil}
	for _, m := range messages {
		value := any(m.Value) // in base64, unless it is JSON
		if json.Valid(m.Value) {
			value = json.RawMessage(m.Value)
		}
		shown.Messages = append(shown.Messages, message{m.Partition, m.Offset, m.Reason, m.ParkedAt, m.Headers, value})
	}
	out := json.NewEncoder(c.stdout)
	out.SetIndent("", "  ")
	return out.Encode(shown)
}

func (c parkedCommand) replay(ctx context.Context) error {
	if c.all == (len(c.ids) > 0) {
		return errors.New("name the parked keys to replay, or -all")
	}
	var all []inbox.Replay
	var err error
	if c.all {
		all, err = c.parked.ReplayAll(ctx, c.filter)
	}
	for _, id := range c.ids {
		var r inbox.Replay
		if r, err = c.parked.Replay(ctx, id); err != nil {
			break
		}
		all = append(all, r)
	}
	refused := false
	for _, r := range all {
		if r.Released {
			fmt.Fprintf(c.stdout, "%s: %d applied, released\n", r.ID, r.Applied)
			continue
		}
		refused = true
		fmt.Fprintf(c.stdout, "%s: %d applied, %d wait still: %s\n", r.ID, r.Applied, r.Remaining, brief(r.Reason))
	}
	if err == nil && refused {
		return errRefusedAgain
	}
	return err
}

// discard needs, beside the database with the keys' events, PAYMENTS_OPERATOR_KEY and the
// pepper: who decides is known as it is for an act on a saga.
func (c parkedCommand) discard(ctx context.Context) error {
	id, err := c.oneID()
	if err != nil {
		return err
	}
	if (c.offset == nil) != c.all {
		return errors.New("say which message by -offset, as `payments parked show` has it of the first, or -all")
	}
	write, err := c.openWrite(ctx)
	if err != nil {
		return err
	}
	defer write.Close()
	who, err := c.operator(ctx, write, access.ParkedDiscard)
	if err != nil {
		return err
	}
	remaining, err := c.parked.Discard(ctx, id, inbox.By{Operator: who.KeyID, Holder: who.Holder, Reason: c.reason}, c.offset)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s: discarded, %d wait still\n", id, remaining)
	return err
}
