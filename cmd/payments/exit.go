package main

// Exit codes of a subcommand that tells them apart. Others exit 1 for every error.
const (
	exitViolated    = 1 // something is wrong with what was looked at
	exitUsage       = 2 // a flag, an argument or a variable is wrong
	exitUnreachable = 3 // Postgres, Kafka or the provider could not be reached or asked
)

// exitError is an error with the code that the process ends with.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

func (e exitError) exitCode() int { return e.code }
