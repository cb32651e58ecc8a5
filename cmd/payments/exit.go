package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"payments/internal/config"
	"payments/internal/payment"
	"payments/internal/postgres"
)

// The exit codes of every subcommand, for scripts. exitCode alone decides between them.
const (
	exitFound       = 1 // something is violated, differs or was refused
	exitUsage       = 2 // a flag, an argument or a variable is wrong
	exitUnreachable = 3 // Postgres, Kafka, the provider or the API could not be reached or asked
	exitInterrupted = 130
)

// usageError is a wrong flag or argument, or a setting that what was reached refuses.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// unreachableError is of something that could not be reached, or that could not answer.
type unreachableError struct{ error }

func (u unreachableError) Unwrap() error { return u.error }

// exitCode of a run that ended with err. Of several errors the one that tells least about
// what was asked wins: what could not be looked at is neither clean nor violated.
func exitCode(err error) int {
	var usage usageError
	var unreachable unreachableError
	var wrong *config.Error
	var network net.Error
	var call *net.OpError
	var refusal *payment.Error
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &usage), errors.As(err, &wrong), errors.As(err, &call) && call.Op == "listen":
		return exitUsage
	case errors.As(err, &unreachable), errors.As(err, &network), postgres.Unavailable(err), errors.Is(err, syscall.ECONNREFUSED),
		errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &refusal) && refusal.Code == payment.CodeServiceUnavailable:
		return exitUnreachable
	}
	return exitFound
}
