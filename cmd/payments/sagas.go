package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v3"

	"payments/internal/access"
	"payments/internal/api"
	"payments/internal/config"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/provider"
	"payments/internal/telemetry"
)

// What each act on a saga does, for its help.
var actUsage = map[string]string{
	"retry": "move a parked saga again", "resolve": "look up now what became of its call", "pause": "let it begin no further step",
	"resume": "let a paused one go on", "cancel": "turn it back, before its pivot", "withdraw": "take back a proposed verdict",
	"propose": "propose what became of a call, as the first of two persons", "approve": "approve a proposed verdict, as the second person",
	"accept_capture": "accept a capture that was made at the provider by hand",
}

// sagasCommand is what operators do with sagas on the command line. It needs the database alone, for an
// act PAYMENTS_OPERATOR_KEY and the pepper, and for a verdict the provider: who acts is known by the same API key
// as over HTTP, and not by a name that anybody can type.
func (e environment) sagasCommand() *cli.Command {
	verbs := []*cli.Command{
		{
			Name: "list", Usage: "list sagas, oldest first, and why each waits",
			Description: about("Those that have not ended, unless -state says otherwise.", "payments sagas list", "payments sagas list -state parked -older-than 10m -output json"),
			Flags: reads(
				&cli.StringFlag{Name: "state", Usage: "one `STATE`: " + strings.Join(order.SagaStates(), ", ")},
				&cli.StringFlag{Name: "definition", Usage: "one `NAME`: " + strings.Join(order.SagaNames(), ", ")},
				&cli.DurationFlag{Name: "older-than", Usage: "at their step for longer than this"},
				&cli.BoolFlag{Name: "paused", Usage: "only paused ones"},
				&cli.StringFlag{Name: "payment", Usage: "all of this payment, `pay_…`, also those that have ended"},
				&cli.StringFlag{Name: "order", Usage: "all of this order, `ord_…`"},
				&cli.StringFlag{Name: "reference", Usage: "all of the orders with this `REFERENCE`"},
				&cli.IntFlag{Name: "limit", Value: 100, Usage: "how many at most"},
			),
			Action: alone(e.listSagas),
		},
		{
			Name: "show", Usage: "show one saga with its attempts and what operators did", ArgsUsage: "sag_…",
			Description: about("", "payments sagas show sag_01m8702cxwf0xvsswam8j18mgk"), Flags: reads(),
			Action: func(ctx context.Context, c *cli.Command) error {
				id, err := sagaID(c)
				if err != nil {
					return err
				}
				sagas, done, err := e.openSagas(ctx, c)
				if err != nil {
					return err
				}
				defer done()
				return e.showSaga(ctx, c, sagas, id)
			},
		},
	}
	for _, act := range order.Acts() {
		verbs = append(verbs, e.actCommand(act))
	}
	return &cli.Command{
		Name: "sagas", Usage: "list, show and move sagas, as an operator",
		Description: about("Acts need PAYMENTS_OPERATOR_KEY, and the database and the pepper.",
			"payments sagas list", "payments sagas retry -reason 'the bank is back' sag_01m8702cxwf0xvsswam8j18mgk"),
		Commands: verbs,
	}
}

func (e environment) actCommand(act string) *cli.Command {
	example := "payments sagas " + act + " -reason 'ticket 4711'"
	flags := []cli.Flag{&cli.StringFlag{Name: "reason", Usage: "`WHY`; kept with the act"}}
	if tells(act) {
		example += " -rejected never_given"
		flags = append(flags,
			&cli.StringFlag{Name: "succeeded", Usage: "it was done: the provider's `REFERENCE` of the operation"},
			&cli.StringFlag{Name: "rejected", Usage: "it was not and will not be done: a `CODE` that says why"})
	}
	return &cli.Command{
		Name: act, Usage: actUsage[act], ArgsUsage: "sag_…", Description: about("", example+" sag_01m8702cxwf0xvsswam8j18mgk"), Flags: shows(flags...),
		Action: func(ctx context.Context, c *cli.Command) error { return e.actOnSaga(ctx, c, act) },
	}
}

// tells of a verdict; the second says what the first said.
func tells(act string) bool { return act == "propose" || act == "approve" }

func sagaID(c *cli.Command) (string, error) {
	if c.NArg() != 1 || !payment.ValidID(payment.PrefixSaga, c.Args().First()) {
		return "", usagef("%s: name one saga by its id (sag_…)", c.FullName())
	}
	return c.Args().First(), nil
}

func (e environment) actOnSaga(ctx context.Context, c *cli.Command, act string) error {
	id, err := sagaID(c)
	if err != nil {
		return err
	}
	by := order.By{Reason: c.String("reason")}
	if err := payment.CheckReason(by.Reason); err != nil {
		return usagef("-reason %w", err)
	}
	var verdict order.Verdict
	// The definitions are looked at and not run. Of the provider a verdict is asked alone.
	var bank provider.Provider = (*provider.HTTP)(nil)
	if tells(act) {
		succeeded, rejected := c.String("succeeded"), c.String("rejected")
		if (succeeded == "") == (rejected == "") {
			return usagef("say either -succeeded REFERENCE or -rejected CODE")
		}
		if verdict = (order.Verdict{Verdict: order.VerdictSucceeded, Reference: succeeded}); rejected != "" {
			verdict = order.Verdict{Verdict: order.VerdictRejected, Code: rejected}
		}
		b, err := config.LoadBank(e.lookup)
		if err != nil {
			return err
		}
		if bank, err = newProvider(b, 0); err != nil {
			return err
		}
	}
	pool, err := e.openWrite(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	who, err := e.operator(ctx, pool, access.SagasOperate)
	if err != nil {
		return err
	}
	by.Operator, by.Holder = who.KeyID, who.Holder
	sagas := order.New(order.Config{Pool: pool, IDs: generator(), Provider: bank, Former: true}).Operations()
	if err := sagas.Act(ctx, by, id, act, verdict); err != nil {
		return err
	}
	return e.showSaga(ctx, c, databaseSagas{sagas}, id)
}

// operator has the API key in the environment, if the policies let it act. A key that is
// bound to networks is refused: there is no address here.
func (e environment) operator(ctx context.Context, pool *pgxpool.Pool, do access.Action) (access.Principal, error) {
	const variable = operatorKey
	key, err := e.required(variable)
	if err != nil {
		return access.Principal{}, err
	}
	pepper, err := e.pepper()
	if err != nil {
		return access.Principal{}, err
	}
	principal, err := access.NewAuthenticator(pool, pepper).Authenticate(ctx, key, netip.Addr{})
	if err != nil {
		return access.Principal{}, refusedKey(err)
	}
	authorizer, err := access.NewAuthorizer(telemetry.NewLogger(e.stderr, slog.LevelWarn, "text"), prometheus.NewRegistry())
	if err != nil {
		return access.Principal{}, err
	}
	if _, err := authorizer.Authorize(ctx, principal, do); err != nil {
		return access.Principal{}, refusedKey(err)
	}
	return principal, nil
}

const operatorKey = "PAYMENTS_OPERATOR_KEY"

// refusedKey is a wrong setting, unless nobody could say.
func refusedKey(err error) error { return fit(fmt.Errorf("%s: %w", operatorKey, err)) }

func sagaFilter(c *cli.Command) (f order.SagaFilter, err error) {
	f = order.SagaFilter{
		State: order.SagaState(c.String("state")), Definition: c.String("definition"), OlderThan: c.Duration("older-than"),
		Paused: c.Bool("paused"), Limit: c.Int("limit"),
	}
	switch {
	case f.State != "" && !slices.Contains(order.SagaStates(), string(f.State)):
		return f, usagef("-state must be one of %s", strings.Join(order.SagaStates(), ", "))
	case f.Definition != "" && !slices.Contains(order.SagaNames(), f.Definition):
		return f, usagef("-definition must be one of %s", strings.Join(order.SagaNames(), ", "))
	case f.OlderThan < 0:
		return f, usagef("-older-than must not be negative")
	case f.Limit < 1 || f.Limit > 10_000:
		return f, usagef("-limit must be from 1 to 10000")
	}
	return f, nil
}

// sagasAbout is the payment that the flags name, or nothing.
func sagasAbout(c *cli.Command) (a order.About, err error) {
	a = order.About{Payment: c.String("payment"), Order: c.String("order"), Reference: c.String("reference")}
	named := 0
	for _, s := range []string{a.Payment, a.Order, a.Reference} {
		if s != "" {
			named++
		}
	}
	switch {
	case named > 1:
		return a, usagef("name one of -payment, -order and -reference")
	case a.Payment != "" && !payment.ValidID(payment.PrefixPayment, a.Payment):
		return a, usagef("-payment must be a payment's id (pay_…)")
	case a.Order != "" && !payment.ValidID(payment.PrefixOrder, a.Order):
		return a, usagef("-order must be an order's id (ord_…); its reference is -reference")
	case a.Reference != "":
		if a.Reference, err = payment.BusinessKey(a.Reference, payment.MaxReference); err != nil {
			return a, usagef("-reference %w", err)
		}
	}
	return a, nil
}

func (e environment) listSagas(ctx context.Context, c *cli.Command) error {
	f, err := sagaFilter(c)
	if err != nil {
		return err
	}
	about, err := sagasAbout(c)
	if err != nil {
		return err
	}
	sagas, done, err := e.openSagas(ctx, c)
	if err != nil {
		return err
	}
	defer done()
	list, err := sagas.list(ctx, f, about)
	if err != nil {
		return err
	}
	return e.show(c, list, func(w io.Writer) {
		t := newTable(w, "ID", "DEFINITION", "SUBJECT", "STATE", "STEP", "SINCE", "TRIES", "WHY")
		for _, s := range list.Data {
			t.row(s.ID, fmt.Sprintf("%s v%d", s.Definition, s.Version), s.Subject, stateOf(s), s.Step, s.StepSince, s.Tries, why(s, time.Now()))
		}
		_ = t.Flush()
	})
}

func stateOf(s api.Saga) string {
	if s.PausedAt != nil {
		return s.State + " (paused)"
	}
	return s.State
}

// why a saga stands where it stands.
func why(s api.Saga, now time.Time) string {
	switch {
	case s.Parked != nil:
		return s.Parked.Code + ": waits for an operator"
	case s.PausedAt != nil:
		return "paused by an operator"
	case s.WaitsFor != nil:
		return "waits for " + *s.WaitsFor
	case s.DueAt == nil:
		if s.Rejection != nil {
			return s.Rejection.Code
		}
		return ""
	case s.Awaiting:
		return "waits for a request, such as a capture, until " + text(s.DueAt)
	case s.Owner != nil && s.DueAt.After(now):
		return "in the hands of " + *s.Owner
	}
	reason := "due since " + text(s.DueAt)
	if s.DueAt.After(now) {
		reason = "due at " + text(s.DueAt)
	}
	switch {
	case s.Resolving:
		reason = fmt.Sprintf("what became of its call is looked up (try %d), %s", s.Tries, reason)
	case s.Tries > 0:
		reason = fmt.Sprintf("tried %d times, %s", s.Tries, reason)
	}
	if s.Rejection != nil {
		reason = s.Rejection.Code + ": " + reason
	}
	return reason
}

func (e environment) showSaga(ctx context.Context, c *cli.Command, sagas sagaReader, id string) error {
	f, err := sagas.open(ctx, id)
	if err != nil {
		return err
	}
	return e.show(c, f, func(w io.Writer) { printSaga(w, f) })
}

func printSaga(w io.Writer, f api.Saga) {
	t := newTable(w)
	t.row(f.ID, fmt.Sprintf("%s v%d of %s, merchant %s", f.Definition, f.Version, f.Subject, f.Merchant))
	t.row("", strings.TrimSpace(fmt.Sprintf("%s at %s since %s, epoch %d  %s", stateOf(f), f.Step, text(f.StepSince), f.Epoch, why(f, time.Now()))))
	if f.Parked != nil && f.Parked.Detail != "" {
		t.row("", f.Parked.Detail)
	}
	if f.DueAt != nil {
		t.row("", "due "+text(f.DueAt))
	}
	fmt.Fprintln(t, "\nATTEMPT\tSTEP\tCALL\tOUTCOME\tCODE\tEPOCH\tSTARTED\tTOOK\tKEY\tREQUEST\tREFERENCE\tDETAIL")
	for _, a := range f.Attempts {
		took, digest := "", ""
		if a.FinishedAt != nil {
			took = a.FinishedAt.Sub(a.StartedAt).Round(time.Millisecond).String()
		}
		if a.RequestDigest != nil {
			digest = (*a.RequestDigest)[:12]
		}
		t.row(a.Number, a.Step, a.Call, a.Outcome, a.Code, a.Epoch, a.StartedAt.UTC().Format("15:04:05.000"), took, a.IdempotencyKey, digest, a.Reference, a.Detail)
	}
	if len(f.Actions) > 0 {
		fmt.Fprintln(t, "\nACT\tACTION\tHOLDER\tOPERATOR\tSTEP\tAT\tREASON")
	}
	for _, a := range f.Actions {
		t.row(a.Number, a.Action, a.Holder, a.Operator, a.Step, a.CreatedAt, a.Reason)
	}
	_ = t.Flush()
}

// sagaReader reads sagas from the database or over HTTP.
type sagaReader interface {
	list(ctx context.Context, f order.SagaFilter, about order.About) (listed[api.Saga], error)
	open(ctx context.Context, id string) (api.Saga, error)
}

func (e environment) openSagas(ctx context.Context, c *cli.Command) (sagaReader, func(), error) {
	if e.overAPI(c) {
		r, err := e.remote()
		return remoteSagas{r}, func() {}, err
	}
	pool, err := e.openWrite(ctx)
	if err != nil {
		return nil, nil, err
	}
	return databaseSagas{order.New(order.Config{Pool: pool, IDs: generator(), Provider: (*provider.HTTP)(nil)}).Operations()}, pool.Close, nil
}

type databaseSagas struct{ order.Operations }

func (d databaseSagas) list(ctx context.Context, f order.SagaFilter, about order.About) (listed[api.Saga], error) {
	if about != (order.About{}) {
		payments, err := d.Find(ctx, about)
		if err == nil && about.Reference != "" {
			payments, err = d.FindEnded(ctx, about.Reference)
		}
		if err != nil {
			return listOf[api.Saga](nil), err
		}
		if f.Of, err = d.Subjects(ctx, payments); err != nil {
			return listOf[api.Saga](nil), err
		}
	}
	found, err := d.List(ctx, f)
	sagas := make([]api.Saga, len(found))
	for i, s := range found {
		sagas[i] = api.ShowSaga(s)
	}
	return listOf(sagas), err
}

func (d databaseSagas) open(ctx context.Context, id string) (api.Saga, error) {
	f, err := d.Open(ctx, id)
	return api.ShowSagaFile(f), err
}
