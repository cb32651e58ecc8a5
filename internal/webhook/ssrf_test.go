package webhook

import (
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"

	"payments/internal/payment"
)

// names is a DNS server of the test's own: what a name resolves to may change
// between two questions.
type names struct {
	mu        sync.Mutex
	addresses map[string][]string
	asked     int
}

func (n *names) set(name string, addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addresses[name] = addresses
}

// answer is a response (RFC 1035, section 4) to a query of one question.
func (n *names) answer(query []byte) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	name, at := "", 12
	for query[at] != 0 {
		name += string(query[at+1:at+1+int(query[at])]) + "."
		at += 1 + int(query[at])
	}
	kind := binary.BigEndian.Uint16(query[at+1:])
	end := at + 5
	var records []byte
	count := uint16(0)
	for _, text := range n.addresses[strings.TrimSuffix(name, ".")] {
		a := netip.MustParseAddr(text)
		if a.Is4() != (kind == 1) || kind != 1 && kind != 28 {
			continue
		}
		count++
		records = append(records, 0xc0, 12)
		records = binary.BigEndian.AppendUint16(records, kind)
		records = append(records, 0, 1, 0, 0, 0, 0)
		records = binary.BigEndian.AppendUint16(records, uint16(a.BitLen()/8))
		records = append(records, a.AsSlice()...)
	}
	response := append([]byte(nil), query[:end]...)
	binary.BigEndian.PutUint16(response[2:], 0x8180)
	binary.BigEndian.PutUint16(response[4:], 1)
	binary.BigEndian.PutUint16(response[6:], count)
	binary.BigEndian.PutUint32(response[8:], 0)
	return append(response, records...)
}

func newNames(t *testing.T) (*names, *net.Resolver) {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &names{addresses: map[string][]string{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			size, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			if _, err := server.WriteTo(n.answer(b[:size]), from); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return n, &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// A name says nothing when it is registered: each of these is a public one by its
// look, and leads to a listener of ours, or to a cloud's metadata.
func TestNamesThatLeadToPrivateAddressesAreNotDialed(t *testing.T) {
	w := newWorld(t)
	dns, resolver := newNames(t)
	r := newReceiver(t, nil)
	u, err := url.Parse(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	for name, addresses := range map[string][]string{
		"loopback.example.com": {"127.0.0.1"}, "loopback6.example.com": {"::1"}, "metadata.example.com": {"169.254.169.254"},
		"private.example.com": {"10.0.0.1"}, "mapped.example.com": {"::ffff:127.0.0.1"}, "nat64.example.com": {"64:ff9b::7f00:1"}, "both.example.com": {"169.254.169.254", "127.0.0.1"},
	} {
		dns.set(name, addresses...)
		w.endpoint(w.merchantID, "http://"+name+":"+u.Port()+"/")
	}
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	closed := w.dispatcher(func(c *Config) { c.Guard, c.Resolver = Guard{}, resolver })
	for range 2 { // a failing endpoint is asked one at a time
		w.turn(closed)
	}
	if n := len(r.all()); n != 0 {
		t.Fatalf("%d requests reached a loopback listener", n)
	}
	if n := value[int](w, `SELECT count(*) FROM webhook_attempts WHERE outcome = 'blocked' AND status IS NULL`); n != 7 {
		t.Errorf("%d attempts were blocked, want 7", n)
	}
	// The listener can be reached by that way: where private addresses are allowed it is,
	// and the cloud's metadata is not even then.
	w.pass()
	w.turn(w.dispatcher(func(c *Config) { c.Guard, c.Resolver = Guard{AllowPrivate: true}, resolver }))
	if n := len(r.all()); n == 0 {
		t.Error("no request came by the test's own names")
	}
	if n := value[int](w, `
		SELECT count(*) FROM webhook_attempts a JOIN webhook_deliveries d ON d.merchant_id = a.merchant_id AND d.id = a.delivery_id
		JOIN webhook_endpoints e ON e.merchant_id = d.merchant_id AND e.id = d.endpoint_id
		WHERE e.url LIKE '%metadata%' AND a.outcome = 'blocked'`); n != 2 {
		t.Errorf("metadata was blocked %d times, want both", n)
	}
}

// A name that resolved to a permitted address, and was delivered to, resolves to
// another before the next attempt.
func TestRebindingBetweenAttemptsIsBlocked(t *testing.T) {
	w := newWorld(t)
	dns, resolver := newNames(t)
	r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") })
	u, err := url.Parse(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	dns.set("rebind.example.com", "127.0.0.1")
	e := w.endpoint(w.merchantID, "http://rebind.example.com:"+u.Port()+"/")
	d := w.dispatcher(func(c *Config) { c.Resolver = resolver })
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	w.turn(d)
	if n := len(r.all()); n != 1 {
		t.Fatalf("%d requests before the name was bound anew", n)
	}
	dns.set("rebind.example.com", "169.254.169.254")
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	w.turn(d)
	if log := w.log(e)[0]; len(log.Log) != 1 || log.Log[0].Outcome != OutcomeBlocked {
		t.Errorf("log %+v", log)
	}
	dns.set("rebind.example.com")
	w.pass()
	w.turn(d)
	if log := w.log(e)[0]; len(log.Log) != 2 || log.Log[1].Outcome != OutcomeUnreachable || !strings.Contains(log.Log[1].Detail, "does not resolve") {
		t.Errorf("log %+v", log)
	}
}

func TestNoProxyIsUsed(t *testing.T) {
	w := newWorld(t)
	proxy, r := newReceiver(t, nil), newReceiver(t, nil)
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	w.endpoint(w.merchantID, strings.Replace(r.URL, "127.0.0.1", "localhost", 1))
	w.happens(w.merchantID, payment.EventOrderConfirmed)
	d := w.dispatcher()
	if d.client.Transport.(*http.Transport).Proxy != nil { //nolint:forcetypeassert // newClient makes it
		t.Error("a proxy would dial past the guard")
	}
	w.turn(d)
	if len(proxy.all()) != 0 || len(r.all()) != 1 {
		t.Errorf("%d requests to the proxy, %d to the receiver", len(proxy.all()), len(r.all()))
	}
}
