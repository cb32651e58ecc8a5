// Package access says who a caller is and what it may do: API keys to
// principals, the policies in policy/ (Cedar) to decisions, and a decision to the
// Scope that queries are bound to.
//
// An explicit forbid wins over every permit, nothing that matches is a deny, and
// so is a policy that cannot be evaluated, which Cedar alone would skip.
//
// An API key is sk_test_ or sk_live_, the 26 characters of its id key_…, which
// is public, 32 characters of secret (160 random bits) and 7 of CRC-32, so that
// a typing error is found offline and scanners can tell a key from noise. The
// secret is shown once; stored is its HMAC under a pepper that is not in the
// database. It needs no slow hash: nobody guesses 160 random bits.
//
// It imports payment, secret, postgres, idempotency and loop.
package access
