package simulator

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

const testSecret = "whsec_of-the-test"

// receiver is where notifications arrive, one at a time in order.
type receiver struct {
	t        *testing.T
	srv      *httptest.Server
	arrivals chan arrival
	answers  chan int // statuses to come; 200 when there is none
}

type arrival struct {
	event
	body, signature string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	rc := &receiver{t: t, arrivals: make(chan arrival, 1000), answers: make(chan int, 1000)}
	rc.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		a := arrival{body: string(body), signature: r.Header.Get(SignatureHeader)}
		if err != nil || json.Unmarshal(body, &a.event) != nil || r.Header.Get("Content-Type") != "application/json" || r.Method != http.MethodPost {
			t.Errorf("arrived: %s %v %q: %v", r.Method, r.Header, body, err)
		}
		status := http.StatusOK
		select {
		case status = <-rc.answers:
		default:
		}
		w.WriteHeader(status)
		rc.arrivals <- a
	}))
	t.Cleanup(rc.srv.Close)
	return rc
}

func (rc *receiver) next() arrival {
	rc.t.Helper()
	select {
	case a := <-rc.arrivals:
		return a
	case <-time.After(patience):
		rc.t.Fatal("no notification arrived")
		return arrival{}
	}
}

// silent waits until nothing is left to deliver and sees that nothing arrived.
func (rc *receiver) silent(b *bank) {
	rc.t.Helper()
	b.eventually("every notification is settled", func() bool { return b.outstanding() == 0 })
	select {
	case a := <-rc.arrivals:
		rc.t.Fatalf("%s arrived", a.body)
	default:
	}
}

func (b *bank) outstanding() int {
	b.t.Helper()
	due, next, err := b.sim.ledger.notices(b.clock.Now(), 1000)
	if err != nil {
		b.t.Fatal(err)
	}
	if !next.IsZero() {
		return len(due) + 1
	}
	return len(due)
}

func newNotifyingBank(t *testing.T) (*bank, *receiver) {
	t.Helper()
	rc := newReceiver(t)
	b := &bank{
		t: t, clock: newHandClock(), path: filepath.Join(t.TempDir(), "ledger.db"),
		webhook: Webhook{URL: rc.srv.URL, Secret: testSecret},
	}
	b.open()
	t.Cleanup(b.close)
	return b, rc
}

func TestEveryNewOperationIsNotifiedOnceAndSigned(t *testing.T) {
	b, rc := newNotifyingBank(t)
	auth := b.want(authorize("a", "pm_card_visa"), http.StatusCreated, "")
	got := rc.next()
	if got.Type != "operation.succeeded" || got.Data != auth || got.Created != auth.Created || got.ID != "evt_"+auth.ID[len("op_"):] {
		t.Errorf("the event is %+v of %+v", got.event, auth)
	}
	mac := hmac.New(sha256.New, []byte(testSecret))
	fmt.Fprintf(mac, "%d.%s", b.clock.Now().Unix(), got.body)
	if want := fmt.Sprintf("t=%d,v1=%s", b.clock.Now().Unix(), hex.EncodeToString(mac.Sum(nil))); got.signature != want {
		t.Errorf("the signature is %s, want %s", got.signature, want)
	}
	b.want(authorize("a", "pm_card_visa"), http.StatusCreated, "") // a replay is nothing new
	declinedOp := b.want(authorize("d", "pm_card_declined"), http.StatusPaymentRequired, "card_declined")
	if got := rc.next(); got.Type != "operation.declined" || got.Data != declinedOp {
		t.Errorf("the event is %+v of %+v", got.event, declinedOp)
	}
	b.held(http.MethodPost, authorize("t", "pm_card_timeout_applied")) // nobody was answered, all the same it was done
	if got := rc.next(); got.Data.IdempotencyKey != "t" {
		t.Errorf("the event is %+v", got.event)
	}
	b.held(http.MethodPost, authorize("l", "pm_card_timeout_lost"))
	rc.silent(b)
}

func TestNotificationsAreRetriedUntilTaken(t *testing.T) {
	b, rc := newNotifyingBank(t)
	rc.answers <- http.StatusInternalServerError
	rc.answers <- http.StatusFound
	b.want(authorize("a", "pm_card_visa"), http.StatusCreated, "")
	first := rc.next()
	b.clock.await(t, notifyPause)
	b.clock.advance(notifyPause)
	second := rc.next()
	b.clock.await(t, 2*notifyPause)
	b.restart() // how often it failed is not forgotten
	b.clock.await(t, 2*notifyPause)
	b.clock.advance(2 * notifyPause)
	third := rc.next()
	rc.silent(b)
	if second.body != first.body || third.body != first.body {
		t.Errorf("deliveries differ: %s, %s, %s", first.body, second.body, third.body)
	}
	if third.signature == first.signature {
		t.Error("the third delivery has the timestamp of the first")
	}
}

func TestFaultsOfNotifications(t *testing.T) {
	b, rc := newNotifyingBank(t)
	do := func(key string) string {
		t.Helper()
		return b.want(authorize(key, "pm_card_visa"), http.StatusCreated, "").ID
	}
	b.fault(`{"kind":"slow"}`) // strikes every request and no notification
	answered := b.background(t.Context(), http.MethodPost, authorize("plain", "pm_card_visa"))
	b.clock.await(t, slowLatency)
	b.clock.advance(slowLatency)
	if r := <-answered; r.status != http.StatusCreated {
		t.Fatalf("answered %d %v", r.status, r.err)
	}
	rc.next()
	if n := testutil.ToFloat64(b.sim.strikes.WithLabelValues(webhook, slow)); n != 0 {
		t.Errorf("a fault of requests struck %v notifications", n)
	}
	rc.silent(b)
	b.clearFaults()

	b.fault(`{"kind":"duplicate","operation":"webhook"}`)
	twice := do("twice")
	if one, two := rc.next(), rc.next(); one.body != two.body || one.Data.ID != twice {
		t.Errorf("%s, then %s", one.body, two.body)
	}
	rc.silent(b)
	b.clearFaults()

	b.fault(`{"kind":"late","operation":"webhook","latency_ms":7000}`)
	do("late")
	b.clock.await(t, 7*time.Second)
	b.clock.advance(7*time.Second - 1)
	if n := b.outstanding(); n != 1 {
		t.Errorf("%d notifications wait, want the late one", n)
	}
	b.clock.advance(1)
	rc.next()
	rc.silent(b)
	b.clearFaults()

	b.fault(`{"kind":"reorder","operation":"webhook","latency_ms":9000}`)
	overtaken := do("overtaken")
	b.clock.await(t, 9*time.Second)
	b.clearFaults()
	overtaking := do("overtaking")
	if one, two := rc.next().Data.ID, rc.next().Data.ID; one != overtaking || two != overtaken {
		t.Errorf("%s came before %s", one, two)
	}
	b.fault(`{"kind":"reorder","operation":"webhook"}`)
	do("alone")
	b.clock.await(t, notifyLatency)
	b.clock.advance(notifyLatency)
	rc.next()
	rc.silent(b)
	b.clearFaults()

	b.fault(`{"kind":"lost","operation":"webhook"}`)
	do("lost")
	rc.silent(b)
}

func TestNotificationsSurviveSIGKILL(t *testing.T) {
	const operations = 20
	asked := make(chan struct{}, operations)
	deaf := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		asked <- struct{}{}
		<-r.Context().Done() // never answered: the child dies first
	}))
	defer deaf.Close()
	path := filepath.Join(t.TempDir(), "ledger.db")
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childLedger+"="+path, childWebhook+"="+deaf.URL)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	var want []string
	for i := range operations {
		id, err := authorizeAt(t, &http.Client{Transport: transport}, strings.TrimSpace(address), fmt.Sprint("k", i))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, id)
	}
	select {
	case <-asked:
	case <-time.After(patience):
		t.Error("the child delivered nothing")
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()

	rc := newReceiver(t)
	sim, err := Open(path, Config{Webhook: Webhook{URL: rc.srv.URL, Secret: testSecret}})
	if err != nil {
		t.Fatal(err)
	}
	defer sim.Close()
	var got []string
	for range operations {
		got = append(got, rc.next().Data.ID)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("notified were %v, want %v", got, want)
	}
}
