package webhook

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"payments/internal/inbox"
	"payments/internal/payment"
)

// load is use with nothing in flight.
func load(slots int) *use {
	return &use{slots: slots, byMerchant: map[string]int{}, byEndpoint: map[string]int{}, slow: map[string]bool{}, slowByMerchant: map[string]int{}}
}

// endpoints are n of a merchant's, each with as much due as it may have in flight.
func endpoints(merchantID string, n int) (all []waiting) {
	for i := range n {
		all = append(all, waiting{merchantID: merchantID, endpointID: fmt.Sprint(merchantID, "/", i), due: perEndpoint})
	}
	return all
}

func TestShare_OneMerchantOneEndpoint(t *testing.T) {
	u := load(128)
	u.share(slices.Concat(endpoints("a", 10), endpoints("b", 1)))
	if u.byMerchant["a"] != 128/merchantShare || u.byMerchant["b"] != perEndpoint {
		t.Errorf("in flight: %v", u.byMerchant)
	}
	for id, n := range u.byEndpoint {
		if n > perEndpoint {
			t.Errorf("%d to %s", n, id)
		}
	}
	failing := endpoints("c", 1)
	failing[0].failing = true
	if got := load(128).share(failing); len(got) != 1 || got[0].due != 1 {
		t.Errorf("an endpoint whose last attempt failed gets %+v", got)
	}
	if got := load(128).share(nil); got != nil {
		t.Errorf("nobody waits, and gets %+v", got)
	}
}

// However many merchants fill the slots, slow or not known to be slow, the next one finds as many
// as each of them holds.
func TestShare_TheNextMerchantFindsItsPart(t *testing.T) {
	for _, slots := range []int{8, 32, 128, 1024} {
		for busy := 1; busy < slots; busy *= 2 {
			u := load(slots)
			var all []waiting
			for m := range busy {
				all = append(all, endpoints(fmt.Sprint("m", m), 10)...)
			}
			for range 3 { // also if they ask again and again
				u.share(all)
			}
			u.share(endpoints("next", 10))
			if got, part := u.byMerchant["next"], min(slots/(busy+1), slots/merchantShare, 10*perEndpoint); got < max(part/2, 1) {
				t.Errorf("%d slots and %d busy merchants: the next gets %d, want about %d", slots, busy, got, part)
			}
		}
	}
}

func TestShare_SlowEndpointsLoseTheirsFirst(t *testing.T) {
	u := load(128)
	var slow []waiting
	for m := range 100 {
		slow = append(slow, endpoints(fmt.Sprint("slow", m), 10)...)
	}
	for _, e := range slow {
		u.slow[e.endpointID] = true
	}
	u.share(slow)
	if u.inFlight != u.slowInFlight || u.slowInFlight > 128/slowShare {
		t.Errorf("%d of 128 slots go to slow endpoints", u.slowInFlight)
	}
	for m, n := range u.slowByMerchant {
		if n > 2 {
			t.Errorf("%s has %d of them", m, n)
		}
	}
	u.share(slices.Concat(slow, endpoints("a", 10), endpoints("b", 10)))
	if u.byMerchant["a"] < 20 || u.byMerchant["b"] < 20 {
		t.Errorf("quick endpoints beside slow ones: %d and %d", u.byMerchant["a"], u.byMerchant["b"])
	}
	// Where there is no lack of slots, a slow endpoint has as many as a quick one.
	u = load(128)
	u.slow["a/0"] = true
	u.share(endpoints("a", 1))
	if u.byEndpoint["a/0"] != perEndpoint {
		t.Errorf("a slow endpoint that is alone has %d", u.byEndpoint["a/0"])
	}
}

func TestFlight_KnowsSlowEndpoints(t *testing.T) {
	now := time.Now()
	f, err := newFlight(func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	took := func(d time.Duration) {
		end := f.begin(claimed{merchantID: "m", endpointID: "e"})
		now = now.Add(d)
		end()
	}
	is := func(what string, slow bool) {
		t.Helper()
		if u := f.use(8); u.slow["e"] != slow || u.inFlight != len(f.attempts) {
			t.Errorf("%s: slow %v, %d in flight of %d", what, u.slow["e"], u.inFlight, len(f.attempts))
		}
	}
	took(slowAfter / 2)
	is("a quick one", false)
	took(3 * slowAfter)
	is("a slow one", true)
	took(0)
	is("once quick after a slow one", true)
	took(0)
	is("twice quick after a slow one", false)
	end := f.begin(claimed{merchantID: "m", endpointID: "e"})
	is("just begun", false)
	now = now.Add(2 * slowAfter)
	is("under way for long", true)
	if u := f.use(8); u.slowInFlight != 1 || u.slowByMerchant["m"] != 1 {
		t.Errorf("%+v", u)
	}
	end()
}

// Four merchants have many endpoints that answer nothing, and their deliveries are the oldest. A
// fifth gets all of its deliveries while every attempt to the four is held, before they are known
// to be slow and after.
func TestSlowEndpointsOfFourMerchantsDelayNobodyElse(t *testing.T) {
	const slots, each, deliveries = 32, 8, 75
	w := newWorld(t)
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	release := make(chan struct{})
	slow := newReceiver(t, func(http.ResponseWriter, *http.Request) { <-release })
	letGo := sync.OnceFunc(func() { close(release) })
	t.Cleanup(letGo)
	quick := newReceiver(t, nil)
	var merchants []string
	for range 4 {
		id := w.merchant()
		merchants = append(merchants, id)
		for range each {
			w.endpoint(id, slow.URL)
		}
	}
	w.endpoint(w.merchantID, quick.URL)
	var batch []inbox.Message
	for range 2 * perEndpoint {
		for _, id := range merchants {
			batch = append(batch, w.message(id, payment.EventOrderConfirmed, 2))
		}
	}
	w.apply(batch...)
	d := w.dispatcher(func(c *Config) { c.Concurrency, c.Now = slots, clock })
	delivered := func(n int) {
		t.Helper()
		for len(quick.all()) < n {
			if _, err := d.RunOnce(t.Context()); err != nil {
				t.Fatal(err)
			}
			if u := d.flight.use(slots); u.inFlight == slots {
				t.Fatalf("all slots are taken, by merchants %v; the fifth got %d of %d deliveries", u.byMerchant, len(quick.all()), n)
			}
			<-d.Woken() // a slot is free: a delivery of the fifth merchant ended
		}
	}
	for range deliveries {
		w.happens(w.merchantID, payment.EventOrderConfirmed)
	}
	delivered(deliveries)
	u := d.flight.use(slots)
	for _, id := range merchants {
		if n := u.byMerchant[id]; n > slots/merchantShare {
			t.Errorf("a slow merchant holds %d of %d slots", n, slots)
		}
	}
	mu.Lock()
	now = now.Add(2 * slowAfter)
	mu.Unlock()
	for range deliveries {
		w.happens(w.merchantID, payment.EventOrderConfirmed)
	}
	delivered(2 * deliveries)
	letGo()
	d.Drain()
}
