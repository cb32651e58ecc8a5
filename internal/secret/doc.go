// Package secret holds the keys of the service: a pepper that makes the MACs by
// which secrets are recognized without being stored, and a cipher for what has
// to be read again. Both are Tink keysets (https://developers.google.com/tink)
// from the environment: each may hold several keys, the primary makes, every
// enabled one is accepted, so that a key is rotated by adding one, making it the
// primary, and removing the old one when nothing it made is left.
//
// A value in the environment is the keyset in Tink's cleartext JSON form,
// encoded in standard base64. No error, log line or %v of this package shows key
// material.
//
// It imports no other package of the service, and knows no database: keys never
// lie beside the data they protect.
package secret
