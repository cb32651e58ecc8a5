package api

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"
)

// deprecation is what the document says by x-deprecated-at and x-sunset; zero without.
type deprecation struct{ at, sunset time.Time }

// earlier takes of each day the one that comes first.
func (d deprecation) earlier(o deprecation) deprecation {
	first := func(a, b time.Time) time.Time {
		if a.IsZero() || !b.IsZero() && b.Before(a) {
			return b
		}
		return a
	}
	return deprecation{first(d.at, o.at), first(d.sunset, o.sunset)}
}

// deprecations are those of one version's document: of an operation by method and path ("GET /v1/payments"), and
// of the version itself.
type deprecations struct {
	version    deprecation
	operations map[string]deprecation
}

var readDeprecations = sync.OnceValues(func() ([]deprecations, error) {
	all := make([]deprecations, len(versions))
	for i, v := range versions {
		var err error
		if all[i], err = deprecationsOf(v.contract.plain()); err != nil {
			return nil, fmt.Errorf("api: the document of %s: %w", v.date, err)
		}
	}
	return all, nil
})

// deprecationsOf reads a document. A sunset has a day from which on one was told of it.
func deprecationsOf(document []byte) (deprecations, error) {
	type dates struct {
		At     string `yaml:"x-deprecated-at"`
		Sunset string `yaml:"x-sunset"`
	}
	var d struct {
		Info  dates
		Paths map[string]map[string]yaml.Node
	}
	if err := yaml.Unmarshal(document, &d); err != nil {
		return deprecations{}, err
	}
	all := deprecations{operations: map[string]deprecation{}}
	var err error
	if all.version, err = deprecationOn(d.Info.At, d.Info.Sunset); err != nil {
		return deprecations{}, err
	}
	for path, item := range d.Paths {
		for method, node := range item {
			if node.Kind != yaml.MappingNode {
				continue // the path's parameters
			}
			var o dates
			if err := node.Decode(&o); err != nil {
				return deprecations{}, err
			}
			of := strings.ToUpper(method) + " " + path
			told, err := deprecationOn(o.At, o.Sunset)
			if err != nil {
				return deprecations{}, fmt.Errorf("%s: %w", of, err)
			}
			if !told.at.IsZero() {
				all.operations[of] = told
			}
		}
	}
	return all, nil
}

func deprecationOn(at, sunset string) (d deprecation, err error) {
	if at == "" && sunset == "" {
		return d, nil
	}
	if d.at, err = time.Parse(time.DateOnly, at); err != nil {
		return d, fmt.Errorf("x-deprecated-at: %w", err)
	}
	if sunset != "" {
		if d.sunset, err = time.Parse(time.DateOnly, sunset); err != nil {
			return d, fmt.Errorf("x-sunset: %w", err)
		}
	}
	return d, nil
}

// tellDeprecation says by Deprecation (RFC 9745) and Sunset (RFC 8594) that what the request uses, its version or
// its operation, is going to go, and counts it. The link leads to the document that says what takes its place.
func (s *server) tellDeprecation(c *call) {
	method := c.r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	of := s.deprecations[c.w.version]
	d := of.version.earlier(of.operations[method+" "+c.w.route])
	if d.at.IsZero() {
		return
	}
	h := c.w.Header()
	h.Set("Deprecation", "@"+strconv.FormatInt(d.at.Unix(), 10))
	if !d.sunset.IsZero() {
		h.Set("Sunset", d.sunset.Format(http.TimeFormat))
	}
	h.Set("Link", `</openapi.yaml?version=`+NewestVersion()+`>; rel="deprecation"; type="application/yaml"`)
	s.metrics.deprecated.WithLabelValues(versions[c.w.version].date, method, c.w.route).Inc()
}
