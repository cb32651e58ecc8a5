package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/access"
	"payments/internal/config"
	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/provider"
	"payments/internal/telemetry"
)

const sagasUsage = `usage:
  payments sagas list [-state S] [-definition D] [-older-than 10m] [-paused] [-limit N]
  payments sagas show ID
  payments sagas retry|resolve|pause|resume|cancel|withdraw|accept_capture -reason TEXT ID
  payments sagas propose|approve -reason TEXT (-succeeded REFERENCE | -rejected CODE) ID`

// sagas is the operators' desk on the command line. It needs the database alone, for an
// act PAYMENTS_OPERATOR_KEY and the pepper, and for a verdict the provider: who acts is known by the same API key
// as over HTTP, and not by a name that anybody can type.
func sagas(ctx context.Context, e environment) error {
	if len(e.args) == 0 {
		return errors.New(sagasUsage)
	}
	verb := e.args[0]
	if verb != "list" && verb != "show" && !slices.Contains(order.Acts(), verb) {
		return fmt.Errorf("there is no %q\n%s", verb, sagasUsage)
	}
	a, err := e.sagaArguments(verb)
	if err != nil {
		return err
	}
	pool, err := e.openWrite(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	// The definitions are looked at and not run. Of the provider a verdict is asked alone.
	var bank provider.Provider = (*provider.HTTP)(nil)
	if verb == "propose" || verb == "approve" {
		b, err := config.LoadBank(e.lookup)
		if err != nil {
			return err
		}
		if bank, err = newProvider(b, 0); err != nil {
			return err
		}
	}
	desk := order.New(order.Config{Pool: pool, IDs: generator(), Provider: bank}).Operations()
	switch verb {
	case "list":
		return e.listSagas(ctx, desk, a.filter)
	case "show":
		return e.showSaga(ctx, desk, a.id)
	}
	who, err := e.operator(ctx, pool, access.SagasOperate)
	if err != nil {
		return err
	}
	a.by.Operator, a.by.Holder = who.KeyID, who.Holder
	if err := desk.Act(ctx, a.by, a.id, verb, a.verdict); err != nil {
		return err
	}
	return e.showSaga(ctx, desk, a.id)
}

// operator has the API key in the environment, if the policies let it act. A key that is
// bound to networks is refused: there is no address here.
func (e environment) operator(ctx context.Context, pool *pgxpool.Pool, do access.Action) (access.Principal, error) {
	const variable = "PAYMENTS_OPERATOR_KEY"
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
		return access.Principal{}, fmt.Errorf("%s: %w", variable, err)
	}
	authorizer, err := access.NewAuthorizer(telemetry.NewLogger(e.stderr, slog.LevelWarn, "text"), prometheus.NewRegistry())
	if err != nil {
		return access.Principal{}, err
	}
	if _, err := authorizer.Authorize(ctx, principal, do); err != nil {
		return access.Principal{}, fmt.Errorf("%s: %w", variable, err)
	}
	return principal, nil
}

type sagaArguments struct {
	id      string
	filter  order.SagaFilter
	by      order.By
	verdict order.Verdict
}

func (e environment) sagaArguments(verb string) (a sagaArguments, err error) {
	flags := flag.NewFlagSet("sagas "+verb, flag.ContinueOnError)
	flags.SetOutput(e.stderr)
	var state, succeeded, rejected string
	tells := verb == "propose" || verb == "approve" // the second says what the first said
	switch verb {
	case "list":
		flags.StringVar(&state, "state", "", "running, compensating, completed, compensated or parked; those that have not ended if empty")
		flags.StringVar(&a.filter.Definition, "definition", "", strings.Join(order.SagaNames(), ", "))
		flags.DurationVar(&a.filter.OlderThan, "older-than", 0, "at their step for longer than this")
		flags.BoolVar(&a.filter.Paused, "paused", false, "only paused ones")
		flags.IntVar(&a.filter.Limit, "limit", 100, "how many at most")
	case "show":
	default:
		flags.StringVar(&a.by.Reason, "reason", "", "why; kept with the act")
		if tells {
			flags.StringVar(&succeeded, "succeeded", "", "it was done: the provider's reference of the operation")
			flags.StringVar(&rejected, "rejected", "", "it was not and will not be done: a code that says why")
		}
	}
	if err := flags.Parse(e.args[1:]); err != nil {
		return a, err
	}
	if verb == "list" {
		return a.listing(flags, state)
	}
	if flags.NArg() != 1 || !payment.ValidID(payment.PrefixSaga, flags.Arg(0)) {
		return a, errors.New("name one saga by its id (sag_…), behind the flags")
	}
	a.id = flags.Arg(0)
	if verb == "show" {
		return a, nil
	}
	if err := payment.CheckReason(a.by.Reason); err != nil {
		return a, fmt.Errorf("-reason %w", err)
	}
	if tells && (succeeded == "") == (rejected == "") {
		return a, errors.New("say either -succeeded REFERENCE or -rejected CODE")
	}
	if a.verdict = (order.Verdict{Verdict: order.VerdictSucceeded, Reference: succeeded}); rejected != "" {
		a.verdict = order.Verdict{Verdict: order.VerdictRejected, Code: rejected}
	}
	return a, nil
}

func (a sagaArguments) listing(flags *flag.FlagSet, state string) (sagaArguments, error) {
	switch {
	case flags.NArg() > 0:
		return a, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case state != "" && !slices.Contains(order.SagaStates(), state):
		return a, fmt.Errorf("-state must be one of %s", strings.Join(order.SagaStates(), ", "))
	case a.filter.Definition != "" && !slices.Contains(order.SagaNames(), a.filter.Definition):
		return a, fmt.Errorf("-definition must be one of %s", strings.Join(order.SagaNames(), ", "))
	case a.filter.OlderThan < 0:
		return a, errors.New("-older-than must not be negative")
	case a.filter.Limit < 1 || a.filter.Limit > 10_000:
		return a, errors.New("-limit must be from 1 to 10000")
	}
	a.filter.State = order.SagaState(state)
	return a, nil
}

func (e environment) listSagas(ctx context.Context, desk order.Operations, f order.SagaFilter) error {
	list, err := desk.List(ctx, f)
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "ID\tDEFINITION\tSUBJECT\tSTATE\tSTEP\tSINCE\tTRIES\tWHY")
	for _, s := range list {
		fmt.Fprintf(out, "%s\t%s v%d\t%s\t%s\t%s\t%s\t%d\t%s\n", s.ID, s.Definition, s.Version, s.Subject, standing(s), s.Step,
			s.StepSince.UTC().Format(time.RFC3339), s.Tries, why(s))
	}
	return out.Flush()
}

func standing(s order.SagaSummary) string {
	if s.PausedAt != nil {
		return string(s.State) + " (paused)"
	}
	return string(s.State)
}

func why(s order.SagaSummary) string {
	for _, r := range []*order.SagaRejection{s.Parked, s.Rejection, s.Abort} {
		if r != nil {
			return r.Code
		}
	}
	if s.WaitsFor != nil {
		return "waits for " + *s.WaitsFor
	}
	return ""
}

func (e environment) showSaga(ctx context.Context, desk order.Operations, id string) error {
	f, err := desk.Open(ctx, id)
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "%s\t%s v%d of %s, merchant %s\n\t%s at %s since %s, epoch %d %s\n", f.ID, f.Definition, f.Version, f.Subject, f.MerchantID,
		standing(f.Summary), f.Step, f.StepSince.UTC().Format(time.RFC3339), f.Epoch, why(f.Summary))
	if f.DueAt != nil {
		fmt.Fprintf(out, "\tdue %s\n", f.DueAt.UTC().Format(time.RFC3339))
	}
	fmt.Fprintln(out, "\nATTEMPT\tSTEP\tCALL\tOUTCOME\tCODE\tEPOCH\tSTARTED\tTOOK\tKEY\tREQUEST\tREFERENCE\tDETAIL")
	for _, t := range f.Trials {
		took, digest := "", ""
		if t.FinishedAt != nil {
			took = t.FinishedAt.Sub(t.StartedAt).Round(time.Millisecond).String()
		}
		if t.RequestDigest != "" {
			digest = t.RequestDigest[:12]
		}
		fmt.Fprintf(out, "%d\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", t.Number, t.Step, t.Call, t.Outcome, t.Code, t.Epoch,
			t.StartedAt.UTC().Format("15:04:05.000"), took, t.IdempotencyKey, digest, t.Reference, t.Detail)
	}
	if len(f.Acts) > 0 {
		fmt.Fprintln(out, "\nACT\tACTION\tHOLDER\tOPERATOR\tSTEP\tAT\tREASON")
	}
	for _, a := range f.Acts {
		fmt.Fprintf(out, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", a.Number, a.Action, a.Holder, a.Operator, a.Step, a.CreatedAt.UTC().Format(time.RFC3339), a.Reason)
	}
	return out.Flush()
}
