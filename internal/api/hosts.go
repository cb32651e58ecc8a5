package api

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// OnlyHosts refuses a request whose Host is a name that is not of the server. A page in the browser
// of somebody who can reach the server could otherwise read it: the page lets its own name lead to
// the server's address, and is then of the same origin (DNS rebinding). An address is no name, and
// so it is let through, as are localhost and the names given.
func OnlyHosts(names []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !servedHost(names, r.Host) {
			http.Error(w, "This server is not known by the name in Host.", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func servedHost(names []string, host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if _, err := netip.ParseAddr(host); err == nil || host == "" || host == "localhost" { // no browser sends an empty one
		return true
	}
	return slices.Contains(names, host)
}
