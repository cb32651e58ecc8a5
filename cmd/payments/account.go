package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"payments/internal/order"
)

// accountWatch keeps the provider's account known, says which one it is, and records it for
// the payments from before accounts were recorded.
type accountWatch struct {
	*service
	known    prometheus.Gauge
	changed  *prometheus.GaugeVec // without labels: it has no series before the account is known
	inUse    *prometheus.GaugeVec
	twice    prometheus.Gauge
	reported string // the account of the last log line
}

func newAccountWatch(s *service) *accountWatch {
	w := &accountWatch{
		service: s,
		known: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "payments_provider_account_known", Help: "1 once the provider has named the account of this process's credentials. No call is made before.",
		}),
		changed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_provider_account_changed", Help: "1 if the service was last used with another account at the provider before this process started.",
		}, nil),
		inUse: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "payments_provider_account", Help: "1 for the account at the provider that this process has credentials for.",
		}, []string{"account"}),
		twice: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "payments_provider_references_shared", Help: "Earlier payments that share a reference of the provider with another payment, as this process found while it recorded their account.",
		}),
	}
	s.registry.MustRegister(w.known, w.changed, w.inUse, w.twice)
	return w
}

// runOnce does not fail while the provider is away: the service works without it.
func (w *accountWatch) runOnce(ctx context.Context) (again bool, err error) {
	asking, cancel := context.WithTimeout(ctx, w.ProviderTimeout)
	defer cancel()
	use, err := w.orders.LearnAccount(asking)
	if err != nil {
		w.known.Set(0)
		w.log.WarnContext(ctx, "the provider has not named the account: no call is made to it", "error", err)
		return false, nil
	}
	w.known.Set(1)
	w.report(ctx, use)
	done, err := w.orders.Inherit(ctx)
	if err != nil {
		return false, err
	}
	for _, id := range done.Twice {
		w.log.ErrorContext(ctx, "a payment shares a reference of the provider with another payment", "payment", id)
	}
	w.twice.Add(float64(len(done.Twice)))
	if done.Payments > 0 {
		w.log.InfoContext(ctx, "recorded the account of earlier payments", "payments", done.Payments)
	}
	return done.More, nil
}

func (w *accountWatch) report(ctx context.Context, use order.AccountUse) {
	if use.Account == w.reported {
		return
	}
	w.reported = use.Account
	w.inUse.Reset()
	w.inUse.WithLabelValues(use.Account).Set(1)
	w.changed.WithLabelValues().Set(map[bool]float64{true: 1}[use.Before != ""])
	if use.Before == "" {
		w.log.InfoContext(ctx, "the provider has named the account", "account", use.Account)
		return
	}
	w.log.WarnContext(ctx, "the service was used with another account at the provider before: its payments wait until its credentials are back",
		"account", use.Account, "before", use.Before)
}
