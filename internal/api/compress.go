package api

import (
	"net/http"

	"github.com/klauspost/compress/gzhttp"
)

// minCompressed bytes: below, a packet is a packet.
const minCompressed = 1400

// compressed sends GET's larger answers gzipped to who takes it.
//
// BREACH needs a secret and something of the attacker's in one compressed answer, many
// times over, with the victim's credentials. None of it is here: an API key is sent by
// a program and never by a browser of itself (there are no cookies), so nobody can make
// another's client ask; no answer repeats what was submitted; and secrets are shown by
// answers to POST alone, which are not compressed. The length is jittered all the same.
func compressed(next http.Handler) (http.Handler, error) {
	wrap, err := gzhttp.NewWrapper(
		gzhttp.MinSize(minCompressed),
		gzhttp.ContentTypes([]string{"application/json", "application/problem+json", "text/csv", "text/html", "application/yaml", "text/javascript", "text/css"}),
		gzhttp.RandomJitter(32, 0, false),
	)
	if err != nil {
		return nil, err
	}
	zipped := wrap(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			zipped.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	}), nil
}
