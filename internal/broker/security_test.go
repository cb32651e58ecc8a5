package broker_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"payments/internal/broker"
	"payments/internal/devstack"
	"payments/internal/outbox"
)

// authority issues certificates for 127.0.0.1.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.key, a.cert = a.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(c *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: "test"}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	signer, parent := key, c
	if a.key != nil {
		signer, parent = a.key, a.cert
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, cert
}

func (a *authority) pair() tls.Certificate {
	a.t.Helper()
	key, cert := a.issue(&x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func TestWhoMayPublishAndConsume(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	encrypted := &tls.Config{Certificates: []tls.Certificate{ca.pair()}}
	mutual := &tls.Config{Certificates: encrypted.Certificates, ClientCAs: ca.pool, ClientAuth: tls.RequireAndVerifyClientCert}
	trusting := &tls.Config{RootCAs: ca.pool}
	known := &tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{ca.pair()}}
	user := func(mechanism, password string) broker.SASL {
		return broker.SASL{Mechanism: mechanism, Username: "payments", Password: password}
	}
	users := []devstack.BrokerUser{
		{Mechanism: "PLAIN", Name: "payments", Password: "p"}, {Mechanism: "SCRAM-SHA-256", Name: "payments", Password: "p"},
		{Mechanism: "SCRAM-SHA-512", Name: "payments", Password: "p"},
	}
	for name, test := range map[string]struct {
		server devstack.BrokerConfig
		client broker.Config
		may    bool
	}{
		"TLS":                        {devstack.BrokerConfig{TLS: encrypted}, broker.Config{TLS: trusting}, true},
		"TLS, another authority":     {devstack.BrokerConfig{TLS: encrypted}, broker.Config{TLS: &tls.Config{RootCAs: other.pool}}, false},
		"TLS, plain text":            {devstack.BrokerConfig{TLS: encrypted}, broker.Config{}, false},
		"mutual TLS":                 {devstack.BrokerConfig{TLS: mutual}, broker.Config{TLS: known}, true},
		"mutual TLS, no certificate": {devstack.BrokerConfig{TLS: mutual}, broker.Config{TLS: trusting}, false},
		"PLAIN over TLS":             {devstack.BrokerConfig{TLS: encrypted, Users: users}, broker.Config{TLS: trusting, SASL: user("PLAIN", "p")}, true},
		"SCRAM-SHA-256":              {devstack.BrokerConfig{Users: users}, broker.Config{SASL: user("SCRAM-SHA-256", "p")}, true},
		"SCRAM-SHA-512":              {devstack.BrokerConfig{Users: users}, broker.Config{SASL: user("SCRAM-SHA-512", "p")}, true},
		"SCRAM, wrong password":      {devstack.BrokerConfig{Users: users}, broker.Config{SASL: user("SCRAM-SHA-256", "q")}, false},
		"SASL, nobody":               {devstack.BrokerConfig{Users: users}, broker.Config{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := devstack.StartBroker(t.Context(), test.server)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := b.Stop(); err != nil {
					t.Error(err)
				}
			})
			c, err := broker.NewClient([]string{b.Addr()}, test.client)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			err = c.EnsureTopic(t.Context(), "events", 2)
			if err == nil {
				err = broker.NewPublisher(c).Publish(t.Context(), []outbox.Message{message("events", "k", 1)})
			}
			if (err == nil) != test.may {
				t.Fatalf("publish = %v, want that it may: %v", err, test.may)
			}
			if test.may {
				m := (&member{t: t}).start(c, "events", rand.Text(), 0)
				m.has(1)
				m.stop()
			}
		})
	}
}

func TestNewClientRefusesAnUnknownMechanism(t *testing.T) {
	if _, err := broker.NewClient([]string{"a:1"}, broker.Config{SASL: broker.SASL{Mechanism: "GSSAPI"}}); err == nil {
		t.Error("NewClient took a mechanism that it does not speak")
	}
}
