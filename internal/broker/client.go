package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"go.opentelemetry.io/otel/trace"
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

// Config of a client. The zero value is good for a single broker that asks for no
// password.
type Config struct {
	// Prefix is put before the name of every topic and group at the broker, so that
	// several installations can share a cluster. What goes in and out of this package
	// is named without it. Letters, digits, '.', '_' and '-'.
	Prefix string
	// ReplicationFactor of topics that EnsureTopic makes. Default 1.
	ReplicationFactor int
	// MinInSync is how many replicas have to have a record before it is acknowledged,
	// in topics that EnsureTopic makes. Default the broker's.
	MinInSync int
	// Retention of topics that EnsureTopic makes. Default the broker's.
	Retention time.Duration
	// TLS encrypts every connection; the brokers' names are checked. Default none.
	TLS *tls.Config
	// SASL says who we are. Default nobody.
	SASL SASL
	// Tracer makes a span of each batch that is sent, and of each that is processed.
	// Default none.
	Tracer trace.Tracer
	// Dial opens each connection to a broker. Default TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// prefixes leave room for a name: Kafka allows a topic 249 characters.
var prefixes = regexp.MustCompile(`^[A-Za-z0-9._-]{0,100}$`)

// Client speaks to one cluster. It connects when it is first used, and again
// whenever it has to.
type Client struct {
	brokers     []string
	config      Config
	client      *kafka.Client
	transport   *kafka.Transport
	connections *connections
	mechanism   sasl.Mechanism
	requests    requests
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
	if !prefixes.MatchString(c.Prefix) {
		return nil, errors.New("a prefix of topics and groups has at most 100 letters, digits, '.', '_' and '-'")
	}
	if c.ReplicationFactor < 0 || c.MinInSync < 0 || c.Retention < 0 {
		return nil, errors.New("a replication factor, a minimum of in-sync replicas and a retention cannot be negative")
	}
	mechanism, err := c.SASL.mechanism()
	if err != nil {
		return nil, err
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
		Context: ctx, TLS: c.TLS, SASL: mechanism,
	}
	return &Client{
		brokers: brokers, config: c, transport: transport, connections: conns, mechanism: mechanism, stop: stop,
		client: &kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport, Timeout: requestTimeout},
	}, nil
}

// prefixed is the name that the broker knows a topic or a group by.
func (c *Client) prefixed(name string) string { return c.config.Prefix + name }

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
