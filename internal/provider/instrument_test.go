package provider_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/trace/noop"

	"payments/internal/provider"
)

type fixed struct {
	provider.Inspector
	name   string
	result provider.Result
}

func (f fixed) Name() string { return f.name }

func (f fixed) Account(context.Context) (string, error) { return f.name + ":1", nil }

func (f fixed) Execute(context.Context, provider.Operation) provider.Result { return f.result }

func (f fixed) Lookup(context.Context, provider.Operation) provider.Result {
	return provider.Result{Outcome: provider.NotFound}
}

func TestInstrumentCountsByOutcome(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	lost := provider.Result{Outcome: provider.Unknown, InFlight: true, Err: errors.New("no answer")}
	one := provider.Instrument(fixed{name: "one", result: lost}, noop.NewTracerProvider().Tracer(""), reg)
	two := provider.Instrument(fixed{name: "two", result: provider.Result{Outcome: provider.Succeeded}}, noop.NewTracerProvider().Tracer(""), reg)
	if one.Name() != "one" {
		t.Errorf("name is %q", one.Name())
	}
	op := authorization("k", "pm_card_visa")
	if got := one.Execute(t.Context(), op); got != lost {
		t.Errorf("result is %+v, want %+v", got, lost)
	}
	one.Execute(t.Context(), op)
	one.Lookup(t.Context(), op)
	two.Execute(t.Context(), op)

	got, err := testutil.GatherAndCount(reg, "payments_provider_calls_total")
	if want := 2 * 4 * (3 + 4); err != nil || got != want {
		t.Errorf("%d series, want %d; %v", got, want, err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			if n := m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount()); n > 0 {
				counted[strings.Join(labels, " ")] = n
			}
		}
	}
	want := map[string]float64{ // labels in alphabetical order of their names
		"execute authorization unknown one":   2,
		"lookup authorization not_found one":  1,
		"execute authorization succeeded two": 1,
		"execute authorization":               3,
		"lookup authorization":                1,
	}
	if len(counted) != len(want) {
		t.Errorf("counted %v", counted)
	}
	for labels, n := range want {
		if counted[labels] != n {
			t.Errorf("%s counted %v times, want %v", labels, counted[labels], n)
		}
	}
}
