// Package api is the service's HTTP face: a table of routes, each with the
// action its caller needs, strict requests, and problem documents (RFC 9457) for
// everything that is refused. It holds no SQL and no rule of the domain: a
// request becomes a value of payment, an answer is written from one. openapi.yaml is
// what clients are promised; contracttest holds the answers of tests against it.
//
// It imports order, readmodel, webhook, access, idempotency, payment, loop, and postgres
// for its classes of errors.
package api
