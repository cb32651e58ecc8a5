package api

import (
	"strconv"
	"strings"
	"time"
)

const maxPreferredWait = 30 // seconds

// preferredWait reads wait from the Prefer headers (RFC 7240): the first one
// given counts, more than 30 seconds are 30, and what cannot be understood is as
// if it were not there.
func preferredWait(header []string) time.Duration {
	for _, preference := range splitQuoted(strings.Join(header, ","), ',') {
		token := splitQuoted(preference, ';')[0] // parameters say nothing about wait
		name, value, _ := strings.Cut(token, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "wait") {
			continue
		}
		value = strings.TrimSpace(value)
		if unquoted, err := strconv.Unquote(value); err == nil && strings.HasPrefix(value, `"`) {
			value = unquoted
		}
		if value == "" || strings.Trim(value, "0123456789") != "" {
			return 0
		}
		n, err := strconv.Atoi(value)
		if err != nil || n > maxPreferredWait { // all digits: an error is a number beyond int
			n = maxPreferredWait
		}
		return time.Duration(n) * time.Second
	}
	return 0
}

// splitQuoted splits at separators outside of quoted strings; never empty.
func splitQuoted(s string, separator byte) []string {
	var parts []string
	quoted, start := false, 0
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case !quoted && s[i] == separator:
			parts, start = append(parts, s[start:i]), i+1
		}
	}
	return append(parts, s[start:])
}
