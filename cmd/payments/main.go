// Command payments is the whole service: each subcommand is one process of it.
//
// The command line is urfave/cli's, version 3 (MIT, no dependency of its own): it has help,
// suggestions and shell completion, and takes a long flag behind one dash as well as behind
// two, which cobra does not: `payments audit -settled` stands in scripts since the first
// version. What is kept here is what it has no word for: one place for the exit codes
// (exitCode), and sentences that name what is wrong.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"

	"payments/internal/config"
)

// version is set by the linker.
var version = "unversioned"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	e := environment{stdout: os.Stdout, stderr: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd())) && os.Getenv("TERM") != "dumb"}
	e.lookup, e.wrong = config.WithFiles(os.Environ())
	e.warnings = config.Unknown(os.Environ())
	err := e.run(ctx, os.Args[1:])
	if err != nil {
		// A driver tells each address that it tried on a line of its own.
		fmt.Fprintln(os.Stderr, "payments:", strings.ReplaceAll(err.Error(), "\n\t", " "))
		os.Exit(exitCode(err)) //nolint:gocritic // stop has nothing left to do
	}
}

// run is main in the hands of a test.
func run(ctx context.Context, args []string, lookup func(string) (string, bool), stdout, stderr io.Writer) error {
	return environment{lookup: lookup, stdout: stdout, stderr: stderr}.run(ctx, args)
}

// environment is what a subcommand may know of its surroundings.
type environment struct {
	lookup         config.Lookup
	wrong          error    // of the variables as such; help is given all the same
	warnings       []string // of variables that are not known
	stdout, stderr io.Writer
	terminal       bool // stderr is one
}

// value of a variable; empty counts as missing.
func (e environment) value(name string) string {
	v, _ := e.lookup(name)
	return v
}

func (e environment) required(name string) (string, error) {
	if v := e.value(name); v != "" {
		return v, nil
	}
	return "", config.Missing(name)
}
