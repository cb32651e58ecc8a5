package relays

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// drainWithin bounds a drain: what was reached by then is the rate.
const drainWithin = 60 * time.Second

type result struct {
	drained  float64 // events a second
	p50, p99 time.Duration
	events   int
	lost     int
	twice    int
	inverted int
}

// payload begins with the event's number, and is some 600 bytes long.
func payload(n int) []byte {
	return fmt.Appendf(nil, `{"n":%12d,"payment":"pay_01jz3c5k8yf4v9w2m6q7r8s9t0","lines":"%s"}`, n, strings.Repeat("0123456789", 53))
}

func number(value []byte) int {
	n, err := strconv.Atoi(strings.TrimSpace(string(value[5:17])))
	if err != nil {
		return 0
	}
	return n
}

func measure(ctx context.Context, s *stack, c contender, o options) (r result, err error) {
	p, err := s.place(ctx)
	if err != nil {
		return r, err
	}
	defer p.close()
	if err := c.prepare(ctx, p); err != nil {
		return r, err
	}
	if c.openTx {
		tx, err := open(ctx, p)
		if err != nil {
			return r, err
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	}
	if o.hold > 0 { // without the transaction, too, so that only it differs
		if _, err := latency(ctx, p, c, o, o.hold); err != nil {
			return r, err
		}
	}
	if err := fill(ctx, p, c, o.events); err != nil {
		return r, err
	}
	if _, err := p.owner.Exec(ctx, `ANALYZE`); err != nil {
		return r, err
	}
	return drainAndLatency(ctx, p, c, o)
}

// open holds a transaction id and a snapshot, as a report or a forgotten session does.
func open(ctx context.Context, p *place) (pgx.Tx, error) {
	tx, err := p.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return nil, err
	}
	_, err = tx.Exec(ctx, `SET idle_in_transaction_session_timeout = 0`)
	if err == nil {
		_, err = tx.Exec(ctx, `SELECT pg_current_xact_id()`)
	}
	return tx, err
}

func drainAndLatency(ctx context.Context, p *place, c contender, o options) (r result, err error) {
	before, err := p.end(ctx)
	if err != nil {
		return r, err
	}
	drain, stop := context.WithCancel(ctx)
	defer stop()
	relayed, err := begin(drain, p, c)
	if err != nil {
		return r, err
	}
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	n := int64(0)
	for n < int64(o.events) && time.Since(began) < drainWithin {
		<-tick.C
		end, err := p.end(ctx)
		if err != nil {
			break
		}
		n = end - before
	}
	r.drained = float64(n) / time.Since(began).Seconds()
	stop()
	if err := <-relayed; err != nil && ctx.Err() != nil {
		return r, err
	}
	if n < int64(o.events) { // what is left of the backlog would be in its way
		if p, err = p.stack.place(ctx); err != nil {
			return r, err
		}
		defer p.close()
		if err := c.prepare(ctx, p); err != nil {
			return r, err
		}
	}
	l, err := latency(ctx, p, c, o, time.Duration(o.seconds)*time.Second)
	l.drained = r.drained
	return l, err
}

// begin starts the relay and returns when it is at work.
func begin(ctx context.Context, p *place, c contender) (<-chan error, error) {
	ready, relayed := make(chan struct{}), make(chan error, 1)
	go func() { relayed <- c.relay(ctx, p, sync.OnceFunc(func() { close(ready) })) }()
	select {
	case <-ready:
		return relayed, nil
	case err := <-relayed:
		return nil, cmp.Or(err, errors.New("the relay ended before it began"))
	}
}

// end is the sum of the partitions' ends.
func (p *place) end(ctx context.Context) (sum int64, err error) {
	ends, err := p.admin.ListEndOffsets(ctx, p.topic)
	if err == nil {
		err = ends.Error()
	}
	ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
	return sum, err
}

const (
	writers = 8
	// warm seconds go before those that p50 and p99 are of: one contender is compiled while it runs.
	warm = 5
)

// latency lets writers append at the rate for a while, with the relay beside them.
func latency(ctx context.Context, p *place, c contender, o options, during time.Duration) (r result, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unmeasured := warm * o.rate
	total := unmeasured + int(during.Seconds()*float64(o.rate))
	committed, received := make([]atomic.Int64, total+1), make([]atomic.Int64, total+1)
	var twice, inverted, arrived atomic.Int64
	consumer, err := p.consumer(kgo.NewOffset().AtEnd())
	if err != nil {
		return r, err
	}
	defer consumer.Close()
	consuming := make(chan struct{})
	go func() {
		defer close(consuming)
		last := map[string]int{}
		for ctx.Err() == nil {
			consumer.PollFetches(ctx).EachRecord(func(rec *kgo.Record) {
				n := number(rec.Value)
				if n == 0 {
					return // of the backlog
				}
				if !received[n].CompareAndSwap(0, time.Now().UnixNano()) {
					twice.Add(1)
					return
				}
				arrived.Add(1)
				if n < last[string(rec.Key)] {
					inverted.Add(1)
				}
				last[string(rec.Key)] = max(n, last[string(rec.Key)])
			})
		}
	}()
	relaying, stop := context.WithCancel(ctx)
	defer stop()
	relayed, err := begin(relaying, p, c)
	if err != nil {
		return r, err
	}
	select { // both have found their places
	case <-time.After(2 * time.Second):
	case err := <-relayed:
		return r, err
	}

	if err := write(ctx, p, c, o, total, committed); err != nil {
		return r, err
	}
	for deadline := time.Now().Add(15 * time.Second); arrived.Load() < int64(total) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	if err := <-relayed; err != nil {
		return r, err
	}
	cancel()
	<-consuming
	var took []time.Duration
	for n := unmeasured + 1; n <= total; n++ {
		if at := received[n].Load(); at != 0 {
			took = append(took, max(0, time.Duration(at-committed[n].Load())))
		}
	}
	slices.Sort(took)
	r = result{events: total, lost: total - int(arrived.Load()), twice: int(twice.Load()), inverted: int(inverted.Load())}
	if len(took) > 0 {
		r.p50, r.p99 = took[len(took)/2], took[len(took)*99/100]
	}
	return r, nil
}

// write appends events 1 to total. A key belongs to one writer, which so holds what
// an aggregate's lock would, and its numbers ascend.
func write(ctx context.Context, p *place, c contender, o options, total int, committed []atomic.Int64) error {
	var next atomic.Int64
	began := time.Now()
	interval := time.Second * time.Duration(o.perTx) / time.Duration(o.rate)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	run := strconv.FormatInt(began.UnixNano(), 36)
	for w := range writers {
		wg.Go(func() {
			sequences := map[string]int64{}
			for {
				i := int(next.Add(1)) - 1
				first := i*o.perTx + 1
				if first > total || ctx.Err() != nil {
					return
				}
				time.Sleep(time.Until(began.Add(time.Duration(i) * interval)))
				var events []event
				for n := first; n < min(first+o.perTx, total+1); n++ {
					key := fmt.Sprintf("%s-%d-%d", run, w, i%50)
					sequences[key]++
					events = append(events, event{key, sequences[key], payload(n)})
				}
				err := pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error { return c.append(ctx, p, tx, events) })
				at := time.Now().UnixNano()
				for n := range events {
					committed[first+n].Store(at)
				}
				if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	return failed
}
