package simulator

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// SignatureHeader carries t=<seconds since 1970>,v1=<HMAC-SHA256 of "t.body", in hex>.
	SignatureHeader = "Provider-Signature"

	notifyAtOnce  = 16 // deliveries under way
	notifyTimeout = 5 * time.Second
	notifyPause   = time.Second // after the first failure; doubles
	notifyPauses  = time.Minute // at most
)

// Webhook is where every operation newly written is notified.
type Webhook struct {
	URL    string
	Secret string // key of the signature, as it stands: whsec_…
}

// notifier delivers the ledger's notices until each was answered by a 2xx, in no
// order that a receiver may rely on. A nil one does nothing.
type notifier struct {
	webhook    Webhook
	ledger     *ledger
	faults     *faults
	clock      Clock
	log        *slog.Logger
	client     *http.Client
	strikes    *prometheus.CounterVec
	deliveries *prometheus.CounterVec // result: delivered, failed, lost
	woken      chan struct{}
	stop       context.CancelFunc
	stopped    chan struct{}
}

func startNotifier(s *Simulator, w Webhook, deliveries *prometheus.CounterVec) *notifier {
	//nolint:forbidigo // the notifier lives from Open to Close
	ctx, stop := context.WithCancel(context.Background())
	n := &notifier{
		webhook: w, ledger: s.ledger, faults: s.faults, clock: s.clock, log: s.log, strikes: s.strikes, deliveries: deliveries,
		client: &http.Client{
			Transport:     &http.Transport{MaxIdleConnsPerHost: notifyAtOnce, IdleConnTimeout: 30 * time.Second},
			Timeout:       notifyTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		woken: make(chan struct{}, 1), stop: stop, stopped: make(chan struct{}),
	}
	go n.run(ctx)
	return n
}

func (n *notifier) wake() {
	if n == nil {
		return
	}
	select {
	case n.woken <- struct{}{}:
	default:
	}
}

func (n *notifier) close() {
	if n == nil {
		return
	}
	n.stop()
	<-n.stopped
	n.client.CloseIdleConnections()
}

func (n *notifier) run(ctx context.Context) {
	defer close(n.stopped)
	for ctx.Err() == nil {
		more, pause, err := n.turn(ctx)
		if err != nil {
			n.log.ErrorContext(ctx, "notifying failed", slog.Any("error", err))
			more, pause = false, notifyPause
		}
		if more {
			continue
		}
		stop := func() bool { return true }
		if pause > 0 {
			stop = n.clock.AfterFunc(pause, n.wake)
		}
		select {
		case <-n.woken:
		case <-ctx.Done():
		}
		stop()
	}
}

// turn delivers what is due; pause is until the next that will be, 0 if none is
// to come.
func (n *notifier) turn(ctx context.Context) (more bool, pause time.Duration, err error) {
	now := n.clock.Now()
	due, next, err := n.ledger.notices(now, notifyAtOnce)
	if err != nil {
		return false, 0, err
	}
	if len(due) == 0 {
		if !next.IsZero() {
			pause = next.Sub(now)
		}
		return false, pause, nil
	}
	var changed, done, sendable []notice
	for _, d := range due {
		d = n.draw(d, now)
		switch {
		case d.Strike == lost:
			n.deliveries.WithLabelValues("lost").Inc()
			done = append(done, d)
		case d.Due.After(now):
			changed = append(changed, d)
		default:
			sendable = append(sendable, d)
		}
	}
	delivered := n.deliver(ctx, sendable)
	var last uint64
	for i, d := range sendable {
		switch {
		case ctx.Err() != nil: // a delivery that was cut off does not count
		case !delivered[i]:
			d.Failed++
			d.Due = n.clock.Now().Add(min(notifyPause<<min(d.Failed-1, 16), notifyPauses))
			changed = append(changed, d)
		case d.Strike == duplicate:
			d.Strike = ""
			changed = append(changed, d)
		default:
			done = append(done, d)
		}
		if delivered[i] {
			last = max(last, d.sequence)
		}
	}
	return true, 0, n.ledger.settle(changed, done, last)
}

// draw decides once for each notice whether a fault strikes it.
func (n *notifier) draw(d notice, now time.Time) notice {
	if d.Drawn {
		if d.Strike == reorder {
			d.Strike = "" // none came to overtake it
		}
		return d
	}
	d.Drawn = true
	struck := n.faults.next(webhook)
	if struck.kind == "" {
		return d
	}
	n.strikes.WithLabelValues(webhook, struck.kind).Inc()
	d.Strike = struck.kind
	if struck.kind == late || struck.kind == reorder {
		d.Due = now.Add(struck.latency)
	}
	return d
}

// deliver reports for each whether it was taken.
func (n *notifier) deliver(ctx context.Context, all []notice) []bool {
	delivered := make([]bool, len(all))
	var sending sync.WaitGroup
	for i, d := range all {
		sending.Go(func() {
			err := n.send(ctx, d.operation)
			delivered[i] = err == nil
			result := "delivered"
			if err != nil {
				result = "failed"
				n.log.WarnContext(ctx, "notification not taken", slog.String("operation", d.operation.ID), slog.Any("error", err))
			}
			n.deliveries.WithLabelValues(result).Inc()
		})
	}
	sending.Wait()
	return delivered
}

func (n *notifier) send(ctx context.Context, o operation) error {
	body, err := json.Marshal(newEvent(o))
	if err != nil {
		return fmt.Errorf("encode a notification: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.webhook.URL, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make a notification: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(SignatureHeader, sign(n.webhook.Secret, n.clock.Now(), body))
	resp, err := n.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the receiver answered %d", resp.StatusCode)
	}
	return nil
}

// sign signs at every delivery anew: the receiver refuses an old timestamp.
func sign(secret string, now time.Time, body []byte) string {
	t := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}
