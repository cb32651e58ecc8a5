package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

type need bool

const (
	required need = true
	optional need = false
)

// reader collects what is wrong. Its sentences never hold a value.
type reader struct {
	lookup Lookup
	errs   []error
}

func (r *reader) err() error {
	if len(r.errs) == 0 {
		return nil
	}
	return &Error{r.errs}
}

// Error is what is wrong with the environment, one line a variable. Each begins with its name.
type Error struct{ lines []error }

func (e *Error) Error() string { return errors.Join(e.lines...).Error() }

func (e *Error) Unwrap() []error { return e.lines }

// Missing is the error of a variable without which nothing can be done.
func Missing(name string) error { return &Error{[]error{errors.New(name + missing)}} }

const missing = " is required and not set"

func (r *reader) wrong(name, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf(name+" "+format, args...))
}

func (r *reader) text(name string, n need) string {
	value, _ := r.lookup(name)
	value = strings.TrimSpace(value)
	if value == "" && n == required {
		r.errs = append(r.errs, Missing(name))
	}
	return value
}

func (r *reader) address(name, otherwise string) string {
	value := r.text(name, optional)
	if value == "" {
		return otherwise
	}
	if !validAddress(value, 0) {
		r.wrong(name, "must be host:port with a port from 0 to 65535")
	}
	return value
}

func (r *reader) addresses(name string) []string {
	value := r.text(name, required)
	if value == "" {
		return nil
	}
	var all []string
	for a := range strings.SplitSeq(value, ",") {
		a = strings.TrimSpace(a)
		if host, _, _ := net.SplitHostPort(a); host == "" || !validAddress(a, 1) {
			r.wrong(name, "must be a comma-separated list of host:port")
			return nil
		}
		all = append(all, a)
	}
	return all
}

// hosts are names without a port, in lower case.
func (r *reader) hosts(name string) (all []string) {
	value := r.text(name, optional)
	if value == "" {
		return nil
	}
	for h := range strings.SplitSeq(value, ",") {
		h = strings.ToLower(strings.TrimSpace(h))
		if h == "" || len(h) > 253 || strings.Trim(h, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
			r.wrong(name, "must be a comma-separated list of host names without a port: number %d is none", len(all)+1)
			return nil
		}
		all = append(all, h)
	}
	return all
}

func validAddress(s string, least uint64) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n >= least
}

// databaseURL drops the parser's error, which repeats the password.
func (r *reader) databaseURL(name string, n need) string {
	value := r.text(name, n)
	if value == "" {
		return ""
	}
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Host == "" && !u.Query().Has("host") {
		r.wrong(name, "must be a Postgres URL: postgres://user:password@host:port/database")
	}
	return value
}

func (r *reader) httpURL(name string, n need) string {
	value := r.text(name, n)
	if value == "" {
		return ""
	}
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		r.wrong(name, "must be an http or https URL without query and fragment")
	}
	return strings.TrimRight(value, "/")
}

// choice gives the first unless another is set.
func (r *reader) choice(name string, choices ...string) string {
	value := r.text(name, optional)
	switch {
	case value == "":
		return choices[0]
	case !slices.Contains(choices, value):
		r.wrong(name, "must be %s", strings.Join(choices, " or "))
		return ""
	}
	return value
}

func (r *reader) stripeKey(name string, n need) string {
	value := r.text(name, n)
	if value != "" && !secretText("sk_", value) && !secretText("rk_", value) {
		r.wrong(name, "must be a secret (sk_…) or restricted (rk_…) key of Stripe")
	}
	return value
}

// webhookSecrets names a wrong one by its place, not by itself.
func (r *reader) webhookSecrets(name string) (all []string) {
	value := r.text(name, optional)
	if value == "" {
		return nil
	}
	for s := range strings.SplitSeq(value, ",") {
		s = strings.TrimSpace(s)
		switch {
		case !secretText("whsec_", s):
			r.wrong(name, "must be a comma-separated list of secrets, each whsec_ and at least 24 letters or digits: number %d is not", len(all)+1)
			return nil
		case slices.Contains(all, s):
			r.wrong(name, "has the secret number %d twice", len(all)+1)
			return nil
		}
		all = append(all, s)
	}
	return all
}

// secretText has letters, digits and the other characters of both base64
// alphabets after its prefix, 24 at least.
func secretText(prefix, s string) bool {
	rest, ok := strings.CutPrefix(s, prefix)
	return ok && len(rest) >= 24 && strings.Trim(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-") == ""
}

func (r *reader) ratio(name string, otherwise float64) float64 {
	value := r.text(name, optional)
	if value == "" {
		return otherwise
	}
	f, err := strconv.ParseFloat(value, 64)
	if err != nil || !(f >= 0 && f <= 1) { // NaN is neither
		r.wrong(name, "must be a number from 0 to 1")
	}
	return f
}

func (r *reader) integer(name string, otherwise, least, most int) int {
	value := r.text(name, optional)
	if value == "" {
		return otherwise
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		r.wrong(name, "must be a whole number from %d to %d", least, most)
	}
	return n
}

// boolean is false unless set.
func (r *reader) boolean(name string) bool {
	switch r.text(name, optional) {
	case "", "false":
	case "true":
		return true
	default:
		r.wrong(name, "must be true or false")
	}
	return false
}

func (r *reader) kafkaPrefix(name string) string {
	value := r.text(name, optional)
	if len(value) > 100 || strings.Trim(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
		r.wrong(name, "must have at most 100 letters, digits, '.', '_' and '-'")
	}
	return value
}

func (r *reader) duration(name string, otherwise, least, most time.Duration) time.Duration {
	value := r.text(name, optional)
	if value == "" {
		return otherwise
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < least || d > most {
		r.wrong(name, "must be a duration from %s to %s, like 2s or 500ms", least, most)
	}
	return d
}

// roles names an unknown word by its place, not by itself.
func (r *reader) roles(name string) Roles {
	value := r.text(name, optional)
	if value == "" {
		return allRoles()
	}
	var roles Roles
	i := 0
	for word := range strings.SplitSeq(value, ",") {
		i++
		role := Role(strings.TrimSpace(word))
		switch {
		case !allRoles().Has(role):
			r.wrong(name, "must be a comma-separated list of api, saga, relay, projector, webhooks and reports: word %d is none of them", i)
		case roles.Has(role):
			r.wrong(name, "names the role %s twice", role)
		default:
			roles = append(roles, role)
		}
	}
	return roles
}

func (r *reader) log() Log {
	l := Log{Format: "json"}
	switch value := r.text("PAYMENTS_LOG_LEVEL", optional); value {
	case "", "info":
	case "debug":
		l.Level = slog.LevelDebug
	case "warn":
		l.Level = slog.LevelWarn
	case "error":
		l.Level = slog.LevelError
	default:
		r.wrong("PAYMENTS_LOG_LEVEL", "must be debug, info, warn or error")
	}
	switch value := r.text("PAYMENTS_LOG_FORMAT", optional); value {
	case "":
	case "json", "text":
		l.Format = value
	default:
		r.wrong("PAYMENTS_LOG_FORMAT", "must be json or text")
	}
	return l
}

// keyset relies on secret's errors, which complete a sentence and show no key.
func keyset[T any](r *reader, name string, parse func(string) (*T, error)) *T {
	value := r.text(name, required)
	if value == "" {
		return nil
	}
	parsed, err := parse(value)
	if err != nil {
		r.wrong(name, "%w", err)
	}
	return parsed
}
