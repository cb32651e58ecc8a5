// Package rekey makes anew, under the keysets' primary keys, all that is stored under
// older ones, so that these can be removed. It works beside live writers: it locks no
// row for longer than its update takes, and writes only where a row still has what it
// has read. It keeps no state: a run that was stopped is begun again, and passes by
// what is done.
//
// It may import order, webhook and idempotency (each says what binds its ciphertexts to
// their rows), secret and postgres.
package rekey
