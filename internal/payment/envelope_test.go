package payment

import (
	"maps"
	"strings"
	"testing"
)

func TestReadEvent(t *testing.T) {
	const ids = `"merchant_id":"mer_01m8702cvkfn8aqyvxe63m804e","order_id":"ord_01m8702cvkfn8aqyvxe63m804e","payment_id":"pay_01m8702cvkfn8aqyvxe63m804e"`
	headers := map[string]string{"ce_id": "evt_1", "ce_type": "order.later", "ce_sequence": "7", "ce_time": "2026-11-24T10:00:00.5+01:00"}
	value := `{` + ids + `,"status":"succeeded","of_a_later_version":1}`
	e, err := ReadEvent(headers, []byte(value))
	if err != nil || e.ID != "evt_1" || e.Type != "order.later" || e.Sequence != 7 || e.At.UTC().Hour() != 9 || e.Data.Status != StatusSucceeded {
		t.Errorf("%+v, %v", e, err)
	}
	for name, c := range map[string]struct{ header, is, old, with, want string }{
		"no sequence":          {header: "ce_sequence", want: "ce_sequence"},
		"the sequence 0":       {header: "ce_sequence", is: "0", want: "ce_sequence"},
		"no time":              {header: "ce_time", is: "today", want: "ce_time"},
		"no type":              {header: "ce_type", want: "ce_type"},
		"no JSON":              {old: "{", with: "", want: "not an event's data"},
		"no id of a merchant":  {old: "mer_", with: "mex_", want: "no valid merchant_id"},
		"no id of an order":    {old: "ord_", with: "orx_", want: "no valid merchant_id"},
		"no id of the payment": {old: "pay_", with: "pax_", want: "no valid merchant_id"},
	} {
		h := maps.Clone(headers)
		if c.header != "" {
			h[c.header] = c.is
		}
		if _, err := ReadEvent(h, []byte(strings.Replace(value, c.old, c.with, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
