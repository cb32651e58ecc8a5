// Package devstack runs the service's surroundings for tests and for a machine
// without Docker: a Postgres of the machine's own (or fetched) binaries, and a
// broker that speaks Kafka's protocol inside this process. Only tests and cmd
// import it; it imports no other package of the service.
package devstack
