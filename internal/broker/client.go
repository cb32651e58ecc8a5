package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/segmentio/kafka-go"
)

const (
	clientID    = "payments"
	dialTimeout = 2 * time.Second
	// requestTimeout bounds requests whose context has no earlier end.
	requestTimeout = 10 * time.Second
	// metadataTTL bounds how long requests go to a partition's former leader.
	metadataTTL = 3 * time.Second
	pingTimeout = 2 * time.Second
)

// Config of a client. The zero value is good for a single broker.
type Config struct {
	// ReplicationFactor of topics that EnsureTopic makes. Default 1.
	ReplicationFactor int
	// Dial opens each connection to a broker. Default TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client speaks to one cluster. It connects when it is first used, and again
// whenever it has to.
type Client struct {
	brokers     []string
	config      Config
	client      *kafka.Client
	transport   *kafka.Transport
	connections *connections
	stop        context.CancelFunc
}

// NewClient takes the brokers to begin with, as host:port; the others are found
// through them.
func NewClient(brokers []string, c Config) (*Client, error) {
	if len(brokers) == 0 {
		return nil, errors.New("a broker client needs at least one broker's host:port")
	}
	for _, b := range brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("broker %q is not host:port", b)
		}
	}
	if c.ReplicationFactor < 0 {
		return nil, fmt.Errorf("a replication factor of %d is negative", c.ReplicationFactor)
	}
	if c.ReplicationFactor == 0 {
		c.ReplicationFactor = 1
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	conns := newConnections(c.Dial)
	ctx, stop := context.WithCancel(context.Background()) //nolint:forbidigo // what the transport runs lives until Close
	transport := &kafka.Transport{
		ClientID: clientID, Dial: conns.dialContext, DialTimeout: dialTimeout, MetadataTTL: metadataTTL,
		Context: ctx,
	}
	return &Client{
		brokers: brokers, config: c, transport: transport, connections: conns, stop: stop,
		client: &kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport, Timeout: requestTimeout},
	}, nil
}

// Close cuts every connection; requests that are under way fail. Consume has
// connections of its own and ends with its context.
func (c *Client) Close() {
	c.stop()
	c.transport.CloseIdleConnections()
	c.connections.close()
}

// Ping asks a broker for its API versions. A connection that the broker has
// closed since it was last used is found by the first try, so there are two.
func (c *Client) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	var err error
	for range 2 {
		var versions *kafka.ApiVersionsResponse
		if versions, err = c.client.ApiVersions(ctx, &kafka.ApiVersionsRequest{}); err == nil {
			err = versions.Error
		}
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("ping the broker: %w", err)
}
