package api

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"payments/internal/payment"
)

const (
	headerVersion = "Payments-Version"
	// firstVersion is of what was written before there were others.
	firstVersion = "2026-11-01"
)

// version is a form of the API that stays as it is, named by the day it came. Handlers make the newest alone;
// an older one is made of it, by taking back what the newer ones changed.
type version struct {
	date     string
	contract asset
	changes  []change // that came with it
}

// change is what a version made of one kind of object, wherever an answer holds one.
type change struct {
	object string
	// down gives the form before the version; up, its inverse, the version's, to an answer that was kept before.
	// One of them may be nil.
	down, up func(object) (object, error)
}

// versions that are served, newest first. A number of one is its place here: 0 is the newest.
var versions = []version{
	{"2026-11-28", newAsset("application/yaml", contract), []change{
		// A refund says why it failed as a payment does: by an object, which can have more members later.
		{object: "refund", down: renamed("failure", "failure_code", codeOf), up: renamed("failure_code", "failure", failureOf)},
		{object: "api_key", up: pinnedToFirst},
	}},
	{firstVersion, newAsset("application/yaml", contract20261101), nil},
}

// Versions are the dates that Payments-Version takes, newest first.
func Versions() []string {
	dates := make([]string, len(versions))
	for i, v := range versions {
		dates[i] = v.date
	}
	return dates
}

// numberOf is -1 of a version that is not served here.
func numberOf(date string) int {
	return slices.IndexFunc(versions, func(v version) bool { return v.date == date })
}

// NewestVersion is what a new API key is pinned to.
func NewestVersion() string { return versions[0].date }

// chooseVersion takes the version that the request names, else the one its API key is pinned to, else the newest.
func (s *server) chooseVersion(c *call) error {
	switch named := c.r.Header.Values(headerVersion); {
	case len(named) > 0:
		if c.w.version = numberOf(named[0]); c.w.version < 0 || len(named) > 1 {
			c.w.version = 0
			return payment.Errorf(codeVersionUnknown, "The %s header has to be one of %s.", headerVersion, strings.Join(Versions(), ", "))
		}
	case c.principal.APIVersion != "":
		if c.w.version = numberOf(c.principal.APIVersion); c.w.version < 0 {
			c.w.version = 0
			return fmt.Errorf("API key %s is pinned to %s: %w", c.principal.KeyID, c.principal.APIVersion, errOtherVersion)
		}
	}
	c.w.Header().Set(headerVersion, versions[c.w.version].date)
	s.tellDeprecation(c)
	return nil
}

// errOtherVersion is of what a newer process has written, during a rollout or after one was taken back: this
// process cannot answer in that version, and another can.
var errOtherVersion = errors.New("this process does not have the version")

// older gives an answer of the newest version as the version of this number has it.
func older(answer []byte, number int) ([]byte, error) {
	return rewritten(answer, func(o object) (_ object, err error) {
		for _, v := range versions[:number] {
			for _, ch := range v.changes {
				if ch.down != nil && ch.object == o.kind() {
					if o, err = ch.down(o); err != nil {
						return nil, err
					}
				}
			}
		}
		return o, nil
	})
}

// newest gives an answer that was kept in the version of this number as handlers make it today.
func newest(kept []byte, number int) ([]byte, error) {
	return rewritten(kept, func(o object) (_ object, err error) {
		for _, v := range slices.Backward(versions[:number]) {
			for _, ch := range v.changes {
				if ch.up != nil && ch.object == o.kind() {
					if o, err = ch.up(o); err != nil {
						return nil, err
					}
				}
			}
		}
		return o, nil
	})
}

// keptIn is the number of the version that a kept answer is in.
func keptIn(header map[string]string) (int, error) {
	date := cmp.Or(header[headerVersion], firstVersion)
	number := numberOf(date)
	if number < 0 {
		return 0, fmt.Errorf("an answer is kept in %s: %w", date, errOtherVersion)
	}
	return number, nil
}

// inVersion gives a handler's answer in the version of the request. Of the newest it is the same bytes.
func (r *recorder) inVersion(answer []byte) ([]byte, error) {
	if r.version == 0 {
		return answer, nil
	}
	return older(answer, r.version)
}
