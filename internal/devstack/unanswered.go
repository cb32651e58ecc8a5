package devstack

import (
	"net"
	"sync"
	"time"
)

// abandonedFor bounds how long a request without a client is waited for. A
// JoinGroup is answered within its group's rebalance timeout, 60 s by default.
const abandonedFor = 70 * time.Second

// listenUnanswered tells kfake that a client is gone only once the request under
// way is answered, as Kafka would find out when it answers. kfake starts a group
// member's session timer when it can hand over the answer to JoinGroup, and never
// if the connection is closed by then: a process that was killed while it joined
// would stay a member for ever, and its partitions nobody's.
func listenUnanswered(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address) //nolint:noctx // kfake hands over none
	if err != nil {
		return nil, err
	}
	return unansweredListener{l}, nil
}

type unansweredListener struct{ net.Listener }

func (l unansweredListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &unansweredConn{Conn: c, closed: make(chan struct{})}, nil
}

// unansweredConn relies on kfake having one request of a connection under way.
type unansweredConn struct {
	net.Conn
	mu       sync.Mutex
	answered chan struct{} // closed by the answer; nil when no request is under way
	closed   chan struct{}
	once     sync.Once
}

func (c *unansweredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	if n > 0 && c.answered == nil {
		c.answered = make(chan struct{})
	}
	answered := c.answered
	c.mu.Unlock()
	if err == nil || answered == nil {
		return n, err
	}
	timer := time.NewTimer(abandonedFor)
	defer timer.Stop()
	select {
	case <-answered:
	case <-c.closed:
	case <-timer.C:
	}
	return n, err
}

func (c *unansweredConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	if c.answered != nil {
		close(c.answered)
		c.answered = nil
	}
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *unansweredConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
