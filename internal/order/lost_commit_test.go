package order_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/payment"
)

// lossy is a connection to the database. Of the transaction that has sent the
// statement, the commit takes effect and its answer is lost, once.
type lossy struct {
	net.Conn
	statement []byte
	lost      *atomic.Int64
	armed     bool
	losing    bool
}

func (l *lossy) Write(b []byte) (int, error) {
	if bytes.Contains(b, l.statement) {
		l.armed = true
	}
	if l.armed && bytes.Contains(b, []byte("commit")) && l.lost.CompareAndSwap(0, 1) {
		l.losing = true
	}
	return l.Conn.Write(b)
}

func (l *lossy) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if l.losing && n > 0 { // the server has committed by now
		_ = l.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// lossyPool makes w's pool lose one answer.
func (w *world) lossyPool(statement string) *atomic.Int64 {
	w.t.Helper()
	lost := &atomic.Int64{}
	w.pool = w.poolBy(func(conn net.Conn) net.Conn { return &lossy{Conn: conn, statement: []byte(statement), lost: lost} })
	return lost
}

// poolBy is w's pool over connections that are wrapped.
func (w *world) poolBy(wrap func(net.Conn) net.Conn) *pgxpool.Pool {
	w.t.Helper()
	c, dialer := w.pool.Config(), &net.Dialer{}
	c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return wrap(conn), nil
	}
	pool, err := pgxpool.NewWithConfig(w.t.Context(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(pool.Close)
	return pool
}

// The answer to the commit of an authorization is lost, and the saga has been given
// back since it awaits its capture, in the same epoch and with as many attempts as
// before: made again, the commit would tell of the authorization twice.
func TestACommitWhoseAnswerWasLostBeforeAnAwaitIsNotMadeTwice(t *testing.T) {
	w := newWorld(t)
	lost := w.lossyPool("payment.authorized")
	id := w.placed("pm_card_visa", payment.CaptureManual)
	w.settle()
	if lost.Load() != 1 {
		t.Fatal("no answer was lost")
	}
	if got, want := w.events(id), []string{"order.placed", "stock.reserved", "payment.authorized"}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	w.audited()
}

// The same where an operator paused the saga while the call was under way.
func TestACommitWhoseAnswerWasLostBeforeAPauseIsNotMadeTwice(t *testing.T) {
	w := newWorld(t)
	lost := w.lossyPool("payment.authorized")
	w.fault(`{"kind": "slow", "operation": "authorization", "latency_ms": 60}`)
	id := w.placed("pm_card_visa", "")
	worker := w.worker()
	if _, err := worker.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for w.count(`SELECT count(*) FROM sagas WHERE intent`) == 0 {
		<-look.C
	}
	w.exec(`UPDATE sagas SET paused_at = now()`)
	worker.Drain()
	if lost.Load() != 1 {
		t.Fatal("no answer was lost")
	}
	if got, want := w.events(id), []string{"order.placed", "stock.reserved", "payment.authorized"}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}
