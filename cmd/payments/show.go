package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/urfave/cli/v3"

	"payments/internal/api"
	"payments/internal/config"
	"payments/internal/payment"
	"payments/internal/provider"
)

func (e environment) pageCommand() *cli.Command {
	return &cli.Command{
		Name: "show", Usage: "show all that is known of a payment on one page", ArgsUsage: "pay_…|ord_…|REFERENCE",
		Description: about(`The payment and its order, its sagas with their attempts, events, refunds, webhook deliveries, and what the
provider has of it. By an order's reference, every try to pay it. Reads over HTTP: needs PAYMENTS_URL and the
key of an operator in PAYMENTS_OPERATOR_KEY, and for the provider's part its variables, such as PAYMENTS_PROVIDER_URL.`,
			"payments show pay_01m8702cxwf0xvsswam8j18mgk", "payments show A-1001 -output json"),
		Flags: shows(), Action: e.showPayments,
	}
}

// page is all that is known of one payment. The API's parts are as the API has them.
type page struct {
	Object     string           `json:"object"`
	Payment    jsontext.Value   `json:"payment"`
	Sagas      []api.Saga       `json:"sagas"`
	Timeline   []jsontext.Value `json:"timeline"`
	Refunds    []jsontext.Value `json:"refunds"`
	Deliveries []jsontext.Value `json:"webhook_deliveries"`
	Provider   providerPart     `json:"provider"`
}

// providerPart is what the provider has, or why it was not or could not be asked.
type providerPart struct {
	Error      *string         `json:"error"`
	Operations []operationPart `json:"operations"`
}

type operationPart struct {
	ID       string     `json:"id"`
	Type     string     `json:"type"`
	Status   string     `json:"status"`
	Amount   int64      `json:"amount"`
	Currency string     `json:"currency"`
	Created  *time.Time `json:"created"`
}

func (e environment) showPayments(ctx context.Context, c *cli.Command) error {
	name, err := oneArgument(c, "one payment, order or reference of an order")
	if err != nil {
		return err
	}
	r, err := e.remote()
	if err != nil {
		return err
	}
	query := url.Values{}
	switch {
	case payment.ValidID(payment.PrefixPayment, name):
		query.Set("payment", name)
	case payment.ValidID(payment.PrefixOrder, name):
		query.Set("order", name)
	default:
		query.Set("reference", name)
	}
	sagas, err := getAll[api.Saga](ctx, r, "/v1/ops/sagas", query, math.MaxInt)
	if err != nil {
		return err
	}
	of := map[string][]api.Saga{}
	var ids []string
	for _, s := range sagas.Data {
		id := text(s.Payment)
		if id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
		of[id] = append(of[id], s)
	}
	if len(ids) == 0 && query.Has("payment") {
		ids = []string{name} // such as a seeded one
	}
	if len(ids) == 0 {
		return fmt.Errorf("there is no payment of the order %q", name)
	}
	all := listOf[page](nil)
	for _, id := range ids {
		p, err := e.pageOf(ctx, r, id, of[id])
		if err != nil {
			return err
		}
		all.Data = append(all.Data, p)
	}
	return e.show(c, all, func(w io.Writer) {
		for i, p := range all.Data {
			if i > 0 {
				fmt.Fprint(w, "\n\n")
			}
			p.print(w)
		}
	})
}

func (e environment) pageOf(ctx context.Context, r remote, id string, sagas []api.Saga) (p page, err error) {
	p = page{Object: "payment_page", Sagas: []api.Saga{}}
	path := "/v1/payments/" + url.PathEscape(id)
	if err := r.get(ctx, path, &p.Payment); err != nil {
		return p, err
	}
	for _, s := range sagas {
		var whole api.Saga
		if err := r.get(ctx, "/v1/ops/sagas/"+url.PathEscape(s.ID), &whole); err != nil {
			return p, err
		}
		p.Sagas = append(p.Sagas, whole)
	}
	for part, to := range map[string]*[]jsontext.Value{"/timeline": &p.Timeline, "/refunds": &p.Refunds} {
		list, err := getAll[jsontext.Value](ctx, r, path+part, url.Values{}, math.MaxInt)
		if err != nil {
			return p, err
		}
		*to = list.Data
	}
	if p.Deliveries, err = deliveriesOf(ctx, r, id, sagas); err != nil {
		return p, err
	}
	p.Provider = e.atProvider(ctx, id, p.Sagas)
	return p, ctx.Err()
}

// deliveriesOf asks each endpoint of the payment's merchant.
func deliveriesOf(ctx context.Context, r remote, id string, sagas []api.Saga) ([]jsontext.Value, error) {
	type endpoint struct {
		ID       string `json:"id"`
		Merchant string `json:"merchant"`
	}
	all := []jsontext.Value{}
	if len(sagas) == 0 {
		return all, nil
	}
	endpoints, err := getAll[endpoint](ctx, r, "/v1/webhook_endpoints", url.Values{}, math.MaxInt)
	if err != nil {
		return all, err
	}
	for _, at := range endpoints.Data {
		if at.Merchant != sagas[0].Merchant {
			continue
		}
		list, err := getAll[jsontext.Value](ctx, r, "/v1/webhook_endpoints/"+url.PathEscape(at.ID)+"/deliveries", url.Values{"payment": {id}}, math.MaxInt)
		if err != nil {
			return all, err
		}
		all = append(all, list.Data...)
	}
	return all, nil
}

// atProvider asks the provider itself, by its variables.
func (e environment) atProvider(ctx context.Context, id string, sagas []api.Saga) (p providerPart) {
	p.Operations = []operationPart{}
	fail := func(err error) providerPart {
		said := err.Error()
		p.Error = &said
		return p
	}
	b, err := config.LoadBank(e.lookup)
	if err != nil {
		return fail(fmt.Errorf("it is not asked: %w", err))
	}
	bank, err := newProvider(b, 1)
	if err != nil {
		return fail(err)
	}
	named := provider.Payment{Reference: id}
	for _, s := range sagas {
		for _, a := range s.Attempts {
			if a.Step == "authorize_payment" && text(a.Outcome) == "succeeded" && a.Reference != nil {
				named.Authorization = *a.Reference
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	state, err := bank.Inspect(ctx, named)
	if err != nil && !errors.Is(err, provider.ErrUnknownID) {
		return fail(fmt.Errorf("it could not be asked: %w", err))
	}
	add := func(id string, kind provider.OperationType, status string, amount int64, currency string, created time.Time) {
		o := operationPart{ID: id, Type: string(kind), Status: status, Amount: amount, Currency: currency}
		if !created.IsZero() {
			o.Created = &created
		}
		p.Operations = append(p.Operations, o)
	}
	for _, a := range state.Authorizations {
		add(a.ID, provider.Authorization, string(a.Status), a.Amount, a.Currency, a.Created)
		if a.Void != "" {
			add(a.Void, provider.Void, "succeeded", a.Amount, a.Currency, time.Time{})
		}
	}
	for _, c := range state.Captures {
		add(c.ID, provider.Capture, "succeeded", c.Amount, c.Currency, time.Time{})
	}
	for _, f := range state.Refunds {
		add(f.ID, provider.Refund, string(f.Status), f.Amount, f.Currency, f.Created)
	}
	return p
}

// shown are the members that the page's table has of the API's resources.
type shown struct {
	ID             string `json:"id"`
	Status         string `json:"status"`
	Amount         int64  `json:"amount"`
	Currency       string `json:"currency"`
	AmountCaptured int64  `json:"amount_captured"`
	AmountRefunded int64  `json:"amount_refunded"`
	PaymentMethod  string `json:"payment_method"`
	CaptureMethod  string `json:"capture_method"`
	Customer       struct {
		Reference string `json:"reference"`
	} `json:"customer"`
	Order struct {
		ID        string `json:"id"`
		Reference string `json:"reference"`
		Lines     []struct {
			SKU        string `json:"sku"`
			Quantity   int64  `json:"quantity"`
			UnitAmount int64  `json:"unit_amount"`
		} `json:"lines"`
	} `json:"order"`
	Failure *struct {
		Code    string `json:"code"`
		Step    string `json:"step"`
		Message string `json:"message"`
	} `json:"failure"`
	CreatedAt     time.Time  `json:"created_at"`
	OccurredAt    time.Time  `json:"occurred_at"`
	Sequence      int64      `json:"sequence"`
	Type          string     `json:"type"`
	EventID       string     `json:"event_id"`
	EventType     string     `json:"event_type"`
	Endpoint      string     `json:"endpoint"`
	AttemptCount  int        `json:"attempt_count"`
	NextAttemptAt *time.Time `json:"next_attempt_at"`
	Reason        *string    `json:"reason"`
}

func read(v jsontext.Value) (s shown) {
	_ = json.Unmarshal(v, &s) // what does not fit is left out of the table, and stands in the JSON
	return s
}

func (p page) print(w io.Writer) {
	s := read(p.Payment)
	t := newTable(w)
	t.row("payment", s.ID, s.Status, fmt.Sprintf("%d %s", s.Amount, s.Currency),
		fmt.Sprintf("captured %d, refunded %d", s.AmountCaptured, s.AmountRefunded), s.PaymentMethod, s.CaptureMethod, s.CreatedAt)
	if s.Failure != nil {
		t.row("failure", s.Failure.Code, "at "+s.Failure.Step, s.Failure.Message)
	}
	var lines []string
	for _, l := range s.Order.Lines {
		lines = append(lines, fmt.Sprintf("%d × %s at %d", l.Quantity, l.SKU, l.UnitAmount))
	}
	t.row("order", s.Order.ID, s.Order.Reference, "customer "+s.Customer.Reference, strings.Join(lines, ", "))
	_ = t.Flush()
	for _, saga := range p.Sagas {
		fmt.Fprintln(w, "\nSAGA")
		printSaga(w, saga)
	}
	fmt.Fprintln(w)
	t = newTable(w, "EVENT", "TYPE", "STATUS", "AT", "ID")
	for _, v := range p.Timeline {
		e := read(v)
		t.row(e.Sequence, e.Type, e.Status, e.OccurredAt, e.EventID)
	}
	_ = t.Flush()
	if len(p.Refunds) > 0 {
		fmt.Fprintln(w)
		t = newTable(w, "REFUND", "STATUS", "AMOUNT", "AT", "REASON")
		for _, v := range p.Refunds {
			f := read(v)
			t.row(f.ID, f.Status, fmt.Sprintf("%d %s", f.Amount, f.Currency), f.CreatedAt, f.Reason)
		}
		_ = t.Flush()
	}
	fmt.Fprintln(w)
	t = newTable(w, "WEBHOOK DELIVERY", "ENDPOINT", "EVENT", "STATUS", "ATTEMPTS", "NEXT")
	for _, v := range p.Deliveries {
		d := read(v)
		t.row(d.ID, d.Endpoint, d.EventType, d.Status, d.AttemptCount, d.NextAttemptAt)
	}
	_ = t.Flush()
	fmt.Fprintln(w)
	t = newTable(w, "AT THE PROVIDER", "TYPE", "STATUS", "AMOUNT", "CREATED")
	for _, o := range p.Provider.Operations {
		t.row(o.ID, o.Type, o.Status, fmt.Sprintf("%d %s", o.Amount, o.Currency), o.Created)
	}
	if p.Provider.Error != nil {
		t.row(*p.Provider.Error)
	}
	_ = t.Flush()
}
