package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"payments/internal/config"
	"payments/internal/payment"
)

const (
	// askWithin bounds each question of the doctor.
	askWithin = 10 * time.Second
	// Clocks that differ by more are told, and by much more are wrong.
	clockSkew, clockWrong = time.Second, 30 * time.Second
)

// verdict of one check.
type verdict string

const (
	fine   verdict = "ok"
	warned verdict = "warning" // it works, and will not always
	failed verdict = "failed"
	away   verdict = "unreachable"
)

// diagnosis is what one check found, and how to mend it.
type diagnosis struct {
	Object string  `json:"object"`
	Check  string  `json:"check"`
	Status verdict `json:"status"`
	Found  string  `json:"found"`
	Fix    *string `json:"fix"`
}

// doctor collects what the checks find. A check that cannot be made, since what it needs is
// away or not named, is left out: the finding about that says so.
type doctor struct {
	environment
	found []diagnosis
}

func (d *doctor) say(check string, v verdict, fix, format string, args ...any) {
	s := diagnosis{Object: "diagnosis", Check: check, Status: v, Found: strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")}
	if fix != "" {
		s.Fix = &fix
	}
	d.found = append(d.found, s)
}

// errIll: the output has told what is wrong.
var errIll = errors.New("something is wrong: the lines above say how to mend it")

func (e environment) doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "check configuration, databases, topic, provider, clock and keysets, and say how to mend each",
		Description: about(`Looks, with the variables of payments serve, and changes nothing. It can run beside a running service.
Exit code 1 if something is wrong, 3 if something could not be reached. A warning alone is no error.`,
			"payments doctor", "payments doctor -output json"),
		Flags: shows(), Action: alone(e.doctor),
	}
}

func (e environment) doctor(ctx context.Context, c *cli.Command) error {
	d := &doctor{environment: e}
	settings := d.configuration()
	for _, check := range []func(context.Context, config.Config){d.databases, d.topic, d.provider, d.certificate, d.address} {
		check(ctx, settings)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if err := e.show(c, listOf(d.found), func(w io.Writer) {
		t := newTable(w)
		for _, f := range d.found {
			t.row(string(f.Status), f.Check, f.Found)
			if f.Fix != nil {
				t.row("", "", "mend: "+*f.Fix)
			}
		}
		_ = t.Flush()
	}); err != nil {
		return err
	}
	ill := error(nil)
	for _, f := range d.found {
		switch f.Status {
		case away:
			return unreachableError{errIll}
		case failed:
			ill = errIll
		case fine, warned:
		}
	}
	return ill
}

// configuration tells each wrong variable, and gives what can be read without the wrong ones.
func (d *doctor) configuration() config.Config {
	const check = "configuration"
	c, err := config.Load(d.lookup)
	var wrong *config.Error
	switch {
	case errors.As(err, &wrong):
		for _, line := range wrong.Unwrap() {
			name, _, _ := strings.Cut(line.Error(), " ")
			fix := "correct " + name
			if strings.HasSuffix(line.Error(), "is required and not set") {
				fix = "set " + name
			}
			if strings.HasSuffix(name, "_KEYSET") {
				fix += "; `payments secrets` makes fresh ones, which read nothing of an older stack"
			}
			d.say(check, failed, fix+" (README, Configuration)", "%s", line)
		}
		c = config.Partial(d.lookup)
	case err != nil:
		d.say(check, failed, "", "%s", err)
	}
	for _, w := range d.warnings {
		d.say(check, warned, "correct its name, or take it out", "%s", w)
	}
	if err == nil && len(d.warnings) == 0 {
		d.say(check, fine, "", "every variable is known and valid; roles %v", c.Roles)
	}
	return c
}

// certificate must fit its key, and not have run out.
func (d *doctor) certificate(_ context.Context, c config.Config) {
	if c.TLSCert == "" || c.TLSKey == "" {
		return
	}
	pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	switch {
	case err != nil:
		d.say("certificate", failed, "let PAYMENTS_TLS_CERT and PAYMENTS_TLS_KEY name readable PEM files of a certificate and its key", "%s", err)
	case pair.Leaf != nil && time.Until(pair.Leaf.NotAfter) < 0:
		d.say("certificate", failed, "renew it", "the certificate of PAYMENTS_TLS_CERT has run out on %s", text(pair.Leaf.NotAfter))
	case pair.Leaf != nil && time.Until(pair.Leaf.NotAfter) < 14*24*time.Hour:
		d.say("certificate", warned, "renew it", "the certificate of PAYMENTS_TLS_CERT runs out on %s", text(pair.Leaf.NotAfter))
	default:
		d.say("certificate", fine, "", "it fits its key")
	}
}

// topic checks Kafka and what the topic of the events promises.
func (d *doctor) topic(ctx context.Context, c config.Config) {
	if len(c.KafkaBrokers) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 3*askWithin)
	defer cancel()
	log, err := newBroker(c.KafkaBrokers, c.KafkaPrefix, c.Kafka, nil)
	if err != nil {
		d.say("kafka", failed, "correct PAYMENTS_KAFKA_…", "%s", err)
		return
	}
	defer log.Close()
	if err := log.Ping(ctx); err != nil {
		d.say("kafka", away, "start Kafka, or correct PAYMENTS_KAFKA_BROKERS, and PAYMENTS_KAFKA_TLS and PAYMENTS_KAFKA_SASL_… if it asks for them",
			"no broker of PAYMENTS_KAFKA_BROKERS answers: %s", err)
		return
	}
	d.say("kafka", fine, "", "a broker of PAYMENTS_KAFKA_BROKERS answers")
	n, err := log.Partitions(ctx, payment.Topic)
	switch {
	case err != nil:
		d.say("topic", failed, "let PAYMENTS_KAFKA_SASL_USERNAME describe topics", "the topic cannot be looked up: %s", err)
		return
	case n == 0:
		d.say("topic", warned, "start a process with the role relay, which makes it, or make it yourself", "there is no topic %s%s yet", c.KafkaPrefix, payment.Topic)
		return
	case n != c.KafkaPartitions:
		d.say("topic", warned, fmt.Sprintf("set PAYMENTS_KAFKA_PARTITIONS to %d, or add partitions to the topic", n), "the topic has %d partitions, and PAYMENTS_KAFKA_PARTITIONS is %d", n, c.KafkaPartitions)
	}
	warnings, err := log.CheckTopic(ctx, payment.Topic)
	if err != nil {
		d.say("topic", failed, "correct the topic's configuration: nothing is published before", "%s", err)
		return
	}
	for _, w := range warnings {
		d.say("topic", warned, "strengthen the topic (kafka-configs), or lower the PAYMENTS_KAFKA_… that asks for more", "%s", w)
	}
	if len(warnings) == 0 {
		d.say("topic", fine, "", "%s%s has %d partitions and keeps what it promises", c.KafkaPrefix, payment.Topic, n)
	}
}

// provider asks for the account, and compares clocks. The database has the account of before.
func (d *doctor) provider(ctx context.Context, c config.Config) {
	if c.Provider == config.ProviderStripe && c.StripeKey == "" || c.Provider == config.ProviderSimulator && c.ProviderURL == "" || c.Provider == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	bank, err := newProvider(c.Bank, 1)
	if err != nil {
		d.say("provider", failed, "", "%s", err)
		return
	}
	variable := "PAYMENTS_PROVIDER_URL"
	if c.Provider == config.ProviderStripe {
		variable = "PAYMENTS_STRIPE_KEY or PAYMENTS_STRIPE_URL"
	}
	account, err := bank.Account(ctx)
	if err != nil {
		d.say("provider", away, "start the provider, or correct "+variable, "%s has not named the account: %s", c.Provider, err)
		return
	}
	if before := d.lastAccount(ctx, c); before != "" && before != account {
		d.say("provider", failed, "bring back the credentials of "+before+" until its payments have ended (docs/runbooks/PaymentsProviderAccountChanged.md)",
			"the credentials are for the account %s, and the payments of before were made with %s", account, before)
	} else {
		d.say("provider", fine, "", "%s answers for the account %s", c.Provider, account)
	}
	address := c.ProviderURL
	if c.Provider == config.ProviderStripe {
		address = c.StripeURL
	}
	if address == "" {
		address = "https://api.stripe.com"
	}
	d.providerClock(ctx, address)
}

// providerClock reads the Date of an answer, which has whole seconds.
func (d *doctor) providerClock(ctx context.Context, address string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, address, http.NoBody)
	if err != nil {
		return
	}
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		return
	}
	_ = resp.Body.Close()
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		d.clock("the provider's", time.Since(at)-time.Second/2)
	}
}

// clock tells how far ours is ahead of another.
func (d *doctor) clock(whose string, ahead time.Duration) {
	const fix = "set the clocks of both machines by NTP (chrony, systemd-timesyncd)"
	switch off := ahead.Abs(); {
	case off > clockWrong:
		d.say("clock", failed, fix, "this machine's clock and %s differ by %s", whose, off.Round(time.Second))
	case off > 2*clockSkew:
		d.say("clock", warned, fix, "this machine's clock and %s differ by %s", whose, off.Round(100*time.Millisecond))
	default:
		d.say("clock", fine, "", "this machine's clock and %s agree", whose)
	}
}

// address checks the operator's way over HTTP, if there is one.
func (d *doctor) address(ctx context.Context, _ config.Config) {
	if d.value("PAYMENTS_URL") == "" || d.value(operatorKey) == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	remote, err := d.remote()
	if err == nil {
		err = remote.get(ctx, "/v1/ops/sagas?limit=1", &struct{}{})
	}
	switch {
	case err == nil:
		d.say("api", fine, "", "PAYMENTS_URL answers to PAYMENTS_OPERATOR_KEY")
	case exitCode(err) == exitUnreachable:
		d.say("api", away, "start the service, or correct PAYMENTS_URL", "%s", err)
	default:
		d.say("api", failed, "correct PAYMENTS_URL or PAYMENTS_OPERATOR_KEY; `payments keys list` shows which keys work", "%s", err)
	}
}
