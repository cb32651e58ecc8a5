package config

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"time"
)

// Kafka is how the brokers are reached, and what is asked of a topic that has to be made.
type Kafka struct {
	TLS               *tls.Config // nil is plain text
	SASLMechanism     string      // "", PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	Username          string
	Password          string
	ReplicationFactor int
	MinInSync         int           // 0 is the broker's default
	Retention         time.Duration // 0 is the broker's default
	Fencing           bool          // of what a former owner of a shard sends late, by the broker
}

func (r *reader) kafka() Kafka {
	k := Kafka{
		TLS:               r.kafkaTLS(),
		SASLMechanism:     r.text("PAYMENTS_KAFKA_SASL_MECHANISM", optional),
		Username:          r.text("PAYMENTS_KAFKA_SASL_USERNAME", optional),
		Password:          r.text("PAYMENTS_KAFKA_SASL_PASSWORD", optional),
		ReplicationFactor: r.integer("PAYMENTS_KAFKA_REPLICATION_FACTOR", 1, 1, 32),
		MinInSync:         r.integer("PAYMENTS_KAFKA_MIN_INSYNC_REPLICAS", 0, 0, 32),
		Retention:         r.duration("PAYMENTS_KAFKA_RETENTION", 0, 0, 100*365*24*time.Hour),
		Fencing:           r.choice("PAYMENTS_KAFKA_FENCING", "off", "on") == "on",
	}
	if k.MinInSync > k.ReplicationFactor {
		r.wrong("PAYMENTS_KAFKA_MIN_INSYNC_REPLICAS", "must not be above PAYMENTS_KAFKA_REPLICATION_FACTOR")
	}
	switch k.SASLMechanism {
	case "":
		if k.Username != "" || k.Password != "" {
			r.wrong("PAYMENTS_KAFKA_SASL_MECHANISM", "is required with a user name or a password")
		}
		return k
	case "PLAIN":
		if k.TLS == nil {
			r.wrong("PAYMENTS_KAFKA_SASL_MECHANISM", "PLAIN sends the password as it is, and needs PAYMENTS_KAFKA_TLS")
		}
	case "SCRAM-SHA-256", "SCRAM-SHA-512":
	default:
		r.wrong("PAYMENTS_KAFKA_SASL_MECHANISM", "must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
	}
	if k.Username == "" {
		r.wrong("PAYMENTS_KAFKA_SASL_USERNAME", "is required with PAYMENTS_KAFKA_SASL_MECHANISM")
	}
	if k.Password == "" {
		r.wrong("PAYMENTS_KAFKA_SASL_PASSWORD", "is required with PAYMENTS_KAFKA_SASL_MECHANISM")
	}
	return k
}

// kafkaTLS is nil unless it is on or one of its files is named: the authorities (the
// system's unless set), and a certificate with its key for a broker that asks who we
// are. All are PEM.
func (r *reader) kafkaTLS() *tls.Config {
	const certName, keyName = "PAYMENTS_KAFKA_TLS_CERT", "PAYMENTS_KAFKA_TLS_KEY"
	on := false
	switch r.text("PAYMENTS_KAFKA_TLS", optional) {
	case "on":
		on = true
	case "", "off":
	default:
		r.wrong("PAYMENTS_KAFKA_TLS", "must be on or off")
	}
	ca, cert, key := r.text("PAYMENTS_KAFKA_TLS_CA", optional), r.text(certName, optional), r.text(keyName, optional)
	if !on && ca == "" && cert == "" && key == "" {
		return nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		c.RootCAs = x509.NewCertPool()
		pem, err := os.ReadFile(ca) //nolint:gosec // the operator's word
		if err != nil || !c.RootCAs.AppendCertsFromPEM(pem) {
			r.wrong("PAYMENTS_KAFKA_TLS_CA", "must name a readable file of PEM certificates")
		}
	}
	switch {
	case (cert == "") != (key == ""):
		r.wrong(certName, "and "+keyName+" are needed together")
	case cert != "":
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			r.wrong(certName, "and "+keyName+" must name readable PEM files of a certificate and its key")
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}
