package test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
)

// An operator without the database's password sees all of a payment by its id, its order's
// id and its order's reference, on one page.
func TestAPaymentIsShownOnOnePage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parts{})
	s := w.serve(map[string]string{"PAYMENTS_WEBHOOKS_ALLOW_PRIVATE": "true"})
	w.hook(s)
	declined := w.paid(s, "show-1", order("SHOW-1", "pm_card_declined"))
	paid := w.paid(s, "show-2", order("SHOW-1", "pm_card_visa"))
	w.settled()
	await(t, settleWithin, func() string {
		if n := w.count(`SELECT count(*) FROM webhook_deliveries WHERE state = 'succeeded' AND payment_id = $1`, paid.ID); n < 5 {
			return fmt.Sprintf("%d events are delivered", n)
		}
		return ""
	})
	vars := map[string]string{
		"PAYMENTS_URL": s.url, "PAYMENTS_OPERATOR_KEY": w.vars["PAYMENTS_OPERATOR_KEY"], "PAYMENTS_PROVIDER_URL": w.vars["PAYMENTS_PROVIDER_URL"],
	}
	shown := func(want int, args ...string) string {
		t.Helper()
		out, stderr, code := run(t.Context(), vars, args...)
		if code != want {
			t.Errorf("payments %q: exit code %d\n%s%s", args, code, out, stderr)
		}
		return out + stderr
	}
	for _, name := range []string{paid.ID, paid.Order.ID, "SHOW-1"} {
		page := shown(0, "show", name)
		for _, part := range []string{
			paid.ID, "succeeded", paid.Order.ID, "SHOW-1", "capture_payment", "payment.captured", "order.confirmed", "webhook delivery", "authorization", "captured",
		} {
			if !strings.Contains(strings.ToLower(page), strings.ToLower(part)) {
				t.Errorf("show %s has no %q:\n%s", name, part, page)
			}
		}
		if both := strings.Contains(page, declined.ID); both != (name == "SHOW-1") {
			t.Errorf("show %s has the declined try: %v\n%s", name, both, page)
		}
	}
	var list struct {
		Data []struct {
			Payment    struct{ ID, Status string }
			Sagas      []struct{ Attempts []any }
			Timeline   []struct{ Type string }
			Deliveries []any `json:"webhook_deliveries"`
			Provider   struct {
				Operations []struct{ Type, Status string }
			}
		}
	}
	if err := json.Unmarshal([]byte(shown(0, "show", paid.ID, "-output", "json")), &list); err != nil || len(list.Data) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	if p := list.Data[0]; p.Payment.ID != paid.ID || len(p.Sagas) != 1 || len(p.Sagas[0].Attempts) < 4 || len(p.Timeline) < 5 || len(p.Deliveries) < 5 ||
		len(p.Provider.Operations) != 2 || p.Provider.Operations[1].Type != "capture" {
		t.Errorf("%+v", p)
	}
	for args, want := range map[string]string{
		"sagas list -reference SHOW-1": paid.Order.ID, "sagas list -payment " + declined.ID: declined.Order.ID, "sagas list": "ID ", "deadletters list": "ID ",
		"keys list": "operator", "keys acts": "seed", "deadletters list -groups": "CONSUMER",
	} {
		if out := shown(0, strings.Fields(args)...); !strings.Contains(out, want) {
			t.Errorf("payments %s over HTTP has no %q:\n%s", args, want, out)
		}
	}
	// The same by the database.
	direct := maps.Clone(w.vars)
	for _, flag := range []string{"-payment " + paid.ID, "-order " + paid.Order.ID, "-reference SHOW-1"} {
		out, stderr, code := run(t.Context(), direct, append([]string{"sagas", "list"}, strings.Fields(flag)...)...)
		if code != 0 || !strings.Contains(out, paid.Order.ID) {
			t.Errorf("sagas list %s: exit code %d\n%s%s", flag, code, out, stderr)
		}
	}
	if out := shown(1, "show", "SHOW-9"); !strings.Contains(out, "SHOW-9") {
		t.Error(out)
	}
	vars["PAYMENTS_PROVIDER_URL"] = "http://127.0.0.1:1"
	if out := shown(0, "show", paid.ID); !strings.Contains(out, "could not be asked") {
		t.Errorf("without the provider:\n%s", out)
	}
	vars["PAYMENTS_OPERATOR_KEY"] = w.vars["PAYMENTS_API_KEY"]
	if out := shown(2, "show", paid.ID); !strings.Contains(out, "PAYMENTS_OPERATOR_KEY") {
		t.Errorf("by a merchant's key:\n%s", out)
	}
	vars["PAYMENTS_URL"] = "http://127.0.0.1:1"
	shown(3, "show", paid.ID)
}
