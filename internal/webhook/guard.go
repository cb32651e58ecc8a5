package webhook

import (
	"errors"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// Guard says where deliveries may go: to public unicast addresses, by https.
type Guard struct {
	// AllowPrivate permits http, loopback and private networks as well, for the
	// demo. What only a machine's own link or its cloud can mean stays refused.
	AllowPrivate bool
}

var errBlocked = errors.New("the address is not a permitted one")

// special is what of the unicast space is not global, by IANA's registries of
// special-purpose addresses (IPv4 and IPv6, of 2025-10-09), less what lies
// outside of 2000::/3, which permits refuses as a whole: loopback, link-local,
// unique local, IPv4-mapped, NAT64 and multicast among it.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
	"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	// 2002::/16 and 2001::/32 (in 2001::/23) carry IPv4 addresses to any network.
	"2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)

// private is what AllowPrivate permits.
var private = prefixes("10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")

// metadata services of clouds that lie in private networks, or, as that of Azure, among public addresses.
var metadata = prefixes("fd00:ec2::/32", "fd20:ce::254/128", "168.63.129.16/32")

var global6 = netip.MustParsePrefix("2000::/3")

func prefixes(all ...string) (p []netip.Prefix) {
	for _, s := range all {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func within(a netip.Addr, all []netip.Prefix) bool {
	for _, p := range all {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (g Guard) permits(a netip.Addr) bool {
	switch {
	case !a.IsValid() || a.Zone() != "" || a.Is4In6() || within(a, metadata):
		return false
	case within(a, private):
		return g.AllowPrivate
	case a.Is6() && !global6.Contains(a):
		return false
	}
	return !within(a, special)
}

// control is a net.Dialer's: it sees the address that is connected to, whatever
// the name resolved to before.
func (g Guard) control(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !g.permits(a.Addr()) || !validPort(a.Port()) {
		return errBlocked
	}
	return nil
}

// validPort leaves the ports of other protocols alone.
func validPort(p uint16) bool { return p == 80 || p == 443 || p >= 1024 }

const maxURL = 2048 // bytes

// checkURL refuses what can be told without asking the DNS; message completes a
// sentence.
func (g Guard) checkURL(text string) (code, message string) {
	const invalid = "url_invalid"
	u, err := url.Parse(text)
	switch {
	case len(text) > maxURL:
		return invalid, "must have at most " + strconv.Itoa(maxURL) + " bytes"
	case err != nil || u.Opaque != "" || u.Host == "":
		return invalid, "must be an absolute URL"
	case u.Scheme != "https" && (!g.AllowPrivate || u.Scheme != "http"):
		return "url_scheme", "must begin with https://"
	case u.User != nil:
		return "url_credentials", "must not hold credentials"
	case strings.Contains(text, "#"):
		return invalid, "must not have a fragment"
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || !validPort(uint16(n)) {
			return "url_port", "must have the port 443, 80, or one from 1024 to 65535"
		}
	}
	if code, message = g.checkHost(strings.TrimSuffix(u.Hostname(), ".")); code == "" && !urlForm.MatchString(text) {
		return invalid, "must be an absolute URL in the characters of RFC 3986, its scheme in lower case"
	}
	return code, message
}

func (g Guard) checkHost(host string) (code, message string) {
	const blocked, sentence = "url_address", "must not name a private, local or reserved address"
	if a, err := netip.ParseAddr(host); err == nil {
		if !g.permits(a) {
			return blocked, sentence
		}
		return "", ""
	}
	labels := strings.Split(strings.ToLower(host), ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "url_invalid", "must have a host name or an address"
		}
	}
	last := labels[len(labels)-1]
	switch {
	// 127.1, 2130706433, 0x7f000001: some resolvers read them as addresses.
	case strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x"):
		return blocked, sentence
	case !g.AllowPrivate && (len(labels) == 1 || last == "localhost" || last == "local" || last == "internal"):
		return blocked, sentence
	}
	return "", ""
}

// urlForm is of RFC 3986, while url.Parse takes what it must not have. The column and
// openapi.yaml have the same.
var urlForm = regexp.MustCompile(`^https?://` +
	`(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?)(:[0-9]{1,5})?` +
	`([/?]([A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)?$`)
