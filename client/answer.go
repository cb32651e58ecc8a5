package client

import "net/http"

// Answer of the service to a call that was not refused.
type Answer[T any] struct {
	Value  T
	Status int
	Header http.Header

	// IdempotencyKey that was sent; empty for what takes none.
	IdempotencyKey string
	// Tries that it took, the last one included.
	Tries int
}

// ReadAfter is for the params of a read that has to see what this call has written.
func (a *Answer[T]) ReadAfter() ReadAfter { return a.Header.Get("Read-After") }

// Replayed says that an earlier request under this key did the work, and that this
// is its answer again.
func (a *Answer[T]) Replayed() bool { return a.Header.Get(headerReplayed) == "true" }

// ETag is for the IfNoneMatch of the next read of the same.
func (a *Answer[T]) ETag() string { return a.Header.Get("ETag") }

// NotModified says that what IfNoneMatch named is still so; Value is empty then.
func (a *Answer[T]) NotModified() bool { return a.Status == http.StatusNotModified }

// RequestID is what the service's logs know the request by.
func (a *Answer[T]) RequestID() string { return a.Header.Get("Request-Id") }

const headerReplayed = "Idempotent-Replayed"
