package broker

import (
	"fmt"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// SASL is a name and a password, and how they are told. The zero value is none.
type SASL struct {
	// Mechanism is PLAIN, which shows the broker the password, SCRAM-SHA-256 or SCRAM-SHA-512.
	Mechanism          string
	Username, Password string
}

func (s SASL) mechanism() (sasl.Mechanism, error) {
	var algorithm scram.Algorithm
	switch s.Mechanism {
	case "":
		return nil, nil //nolint:nilnil // none is a choice
	case "PLAIN":
		return plain.Mechanism{Username: s.Username, Password: s.Password}, nil
	case "SCRAM-SHA-256":
		algorithm = scram.SHA256
	case "SCRAM-SHA-512":
		algorithm = scram.SHA512
	default:
		return nil, fmt.Errorf("the SASL mechanism %q is none of PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512", s.Mechanism)
	}
	m, err := scram.Mechanism(algorithm, s.Username, s.Password)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", s.Mechanism, err)
	}
	return m, nil
}

// dialer is for what kafka-go does not send through a Transport.
func (c *Client) dialer(conns *connections) *kafka.Dialer {
	return &kafka.Dialer{
		ClientID: clientID, DialFunc: conns.dialContext, Timeout: dialTimeout, TLS: c.config.TLS, SASLMechanism: c.mechanism,
	}
}
