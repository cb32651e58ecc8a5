package access

import (
	"errors"
	"net/netip"
)

// ParseNetwork takes a network in CIDR form, or one address, and refuses bits
// behind its length, as the database does.
func ParseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Masked() != p || p.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("must be a network like 203.0.113.0/24 without bits behind its length")
	}
	return p, nil
}

func texts(networks []netip.Prefix) []string {
	all := make([]string, len(networks))
	for i, n := range networks {
		all[i] = n.String()
	}
	return all
}
