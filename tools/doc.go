// Package tools pins the project's tools (tool directives in go.mod) and holds
// the tests of what deploys the service: docker-compose.yml, Dockerfile, and the
// Prometheus and Grafana files under deploy/. It is a module of its own so that
// their libraries stay out of the service's go.mod. Nothing imports it.
//
// The tests need -count=1: go test's cache does not see a change of a file above
// its own module.
package tools
