// Package idempotency lets a client repeat a request that it got no answer to:
// the first request under a key does the work, and its answer, kept in the same
// transaction as the work, is given to every later one.
//
// While the first request runs, an advisory lock of its transaction holds the
// key. The lock ends with the transaction, and so does everything the request
// did: a crash, a lost connection or a rollback frees the key with nothing done,
// a commit leaves the answer. Nothing expires by time while the first attempt
// still runs, so that no second attempt can ever begin beside it, and no row
// says "in progress" that somebody would have to clean up.
//
// It knows no payment. It imports postgres only, so that it can be lifted out
// and used elsewhere.
package idempotency
