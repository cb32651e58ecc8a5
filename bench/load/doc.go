// Package load makes payments by HTTP and sees when each reaches the read model.
//
// Closed loops hold the number of unfinished payments constant, which finds what the service can do.
// Open loops post at fixed times whatever the service does; their latencies count from the time at which
// a request was due, so that a service that stalls cannot hide it (coordinated omission).
package load
