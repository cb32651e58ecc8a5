// Package config reads the service's settings from the environment, PAYMENTS_*.
// A variable that is empty counts as not set. Every wrong or missing one gives a
// sentence that names it and never repeats its value, which may be a secret; all
// of them are told at once.
//
// It imports secret.
package config
