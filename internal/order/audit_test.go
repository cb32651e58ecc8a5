package order_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Payments and refunds go on between what the audit reads here and what it reads at the
// bank. No lock and no clock is bent.
func TestTheAuditOfALiveSystemFindsNoViolations(t *testing.T) {
	w := newWorld(t)
	old := w.placed("pm_card_visa", "")
	w.settle()
	w.audited()
	var once sync.Mutex // the audit asks one after another, and so does the bank's notice of a closed connection
	between := func() {
		once.Lock()
		defer once.Unlock()
		amount := int64(1)
		w.placed("pm_card_visa", "")                                   // a new payment
		if _, err := w.refund(t.Context(), old, &amount); err != nil { // and a refund of an old one
			t.Error(err)
		}
		w.settle()
	}
	ledger := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		between()
		resp, err := client.Get(w.bank + r.URL.String())
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		rw.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		_, _ = io.Copy(rw, resp.Body)
		between()
	}))
	defer ledger.Close()
	findings, err := w.audit(ledger.URL).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		for _, v := range f.Violations {
			if f.Invariant != 6 {
				t.Errorf("invariant %d, %s: %s", f.Invariant, f.Name, v)
			}
		}
	}
	w.audited() // and everything is as it should be
}
