package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"
)

// commands are the subcommands in the order of the help.
func (e environment) commands() []*cli.Command {
	return []*cli.Command{
		e.serveCommand(), e.simulatorCommand(), e.migrateCommand(), e.seedCommand(), e.demoCommand(),
		e.doctorCommand(), e.auditCommand(), e.reconcileCommand(), e.replayCommand(), e.pageCommand(), e.sagasCommand(), e.deadLettersCommand(), e.outboxCommand(),
		e.webhooksCommand(), e.keysCommand(), e.secretsCommand(),
		e.healthcheckCommand(), e.welcomeCommand(), e.versionCommand(),
	}
}

// program is the tree of subcommands for one run: what was parsed is kept in it.
func (e environment) program() *cli.Command {
	root := &cli.Command{
		Name: "payments", Usage: "take payments and keep promises: the service, and what its operators need",
		Description: about(`Settings are environment variables, PAYMENTS_…: docs/configuration.md has them all.
A flag can have one dash or two.

Exit codes: 0 fine; 1 something is violated, differs or was refused; 2 wrong flags, arguments or
variables; 3 Postgres, Kafka, the provider or the API could not be reached; 130 interrupted.`,
			"payments demo", "payments sagas list -state parked", "source <(payments completion bash)"),
		Commands: e.commands(), Action: e.namesSubcommand,
		Writer: e.stdout, ErrWriter: e.stderr,
		EnableShellCompletion: true,
		ConfigureShellCompletionCommand: func(c *cli.Command) {
			c.Hidden, c.Usage = false, "print the completion script of a shell: bash, zsh, fish or pwsh"
			c.Description = about("Source what it prints in the shell's own file.", "source <(payments completion bash)", "source <(payments completion zsh)",
				"payments completion fish > ~/.config/fish/completions/payments.fish")
			for _, shell := range c.Commands {
				shell.Description = about("", "payments completion "+shell.Name)
			}
		},
		ExitErrHandler: func(context.Context, *cli.Command, error) {}, // main exits
		Before: func(ctx context.Context, _ *cli.Command) (context.Context, error) {
			if e.wrong != nil {
				return ctx, usageError{e.wrong}
			}
			for _, w := range e.warnings {
				fmt.Fprintln(e.stderr, "payments: warning:", w)
			}
			return ctx, nil
		},
	}
	_ = root.Walk(func(c *cli.Command) error {
		c.OnUsageError = wrongUsage
		if c.Action == nil && len(c.Commands) > 0 {
			c.Action = e.namesSubcommand
		}
		return nil
	})
	return root
}

func (e environment) run(ctx context.Context, args []string) error {
	return e.program().Run(ctx, append([]string{"payments"}, args...))
}

// about is a description with examples, which every subcommand has.
func about(text string, examples ...string) string {
	if text != "" {
		text += "\n\n"
	}
	return text + "Examples:\n  " + strings.Join(examples, "\n  ")
}

// wrongUsage says in one line what is wrong, and where the help is.
func wrongUsage(_ context.Context, c *cli.Command, err error, _ bool) error {
	if errors.As(err, new(usageError)) {
		return err
	}
	return usagef("%s: %w (`%s -h` helps)", c.FullName(), err, c.FullName())
}

// namesSubcommand refuses a group without one of its subcommands.
func (e environment) namesSubcommand(_ context.Context, c *cli.Command) error {
	var names []string
	for _, s := range c.VisibleCommands() {
		if s.Name != "help" {
			names = append(names, s.Name)
		}
	}
	one := "name a subcommand of `" + c.FullName() + "`: " + strings.Join(names, ", ")
	if !c.Args().Present() {
		if err := cli.ShowSubcommandHelp(writingTo(c, e)); err != nil {
			return err
		}
		return usagef("%s", one)
	}
	near := ""
	if name := cli.SuggestCommand(c.Commands, c.Args().First()); name != "help" && name != "h" {
		near = fmt.Sprintf(" Did you mean %q?", name)
	}
	return usagef("there is no subcommand %q.%s %s", c.Args().First(), near, strings.ToUpper(one[:1])+one[1:])
}

// writingTo lets the help that nobody asked for go where errors go.
func writingTo(c *cli.Command, e environment) *cli.Command {
	c.Root().Writer = e.stderr
	return c
}

// noArguments refuses what a subcommand would silently ignore.
func noArguments(c *cli.Command) error {
	if c.Args().Present() {
		return usagef("%s: unexpected argument %q (`%s -h` helps)", c.FullName(), c.Args().First(), c.FullName())
	}
	return nil
}

// oneArgument is the only one.
func oneArgument(c *cli.Command, what string) (string, error) {
	if c.NArg() != 1 {
		return "", usagef("%s: name %s, not %d arguments (`%s -h` helps)", c.FullName(), what, c.NArg(), c.FullName())
	}
	return c.Args().First(), nil
}

// alone is the action of a subcommand without arguments.
func alone(action cli.ActionFunc) cli.ActionFunc {
	return func(ctx context.Context, c *cli.Command) error {
		if err := noArguments(c); err != nil {
			return err
		}
		return action(ctx, c)
	}
}

func (e environment) versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version", Description: about("", "payments version"),
		Action: alone(func(context.Context, *cli.Command) error {
			_, err := fmt.Fprintln(e.stdout, version)
			return err
		}),
	}
}
