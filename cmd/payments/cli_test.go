package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/urfave/cli/v3"

	"payments/internal/config"
	"payments/internal/payment"
)

// said is what a command without any variable says.
func said(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, problems bytes.Buffer
	err = run(t.Context(), args, func(string) (string, bool) { return "", false }, &out, &problems)
	return out.String(), problems.String(), err
}

// paths of all subcommands, those that have subcommands of their own included.
func paths(t *testing.T) (all [][]string) {
	t.Helper()
	var walk func(c *cli.Command, path []string)
	walk = func(c *cli.Command, path []string) {
		all = append(all, path)
		for _, s := range c.Commands {
			walk(s, append(slices.Clip(path), s.Name))
		}
	}
	walk(environment{}.program(), nil)
	return all
}

func TestEverySubcommandHelps(t *testing.T) {
	all := append(paths(t), []string{"completion"}, []string{"completion", "bash"})
	if len(all) < 45 {
		t.Errorf("%d subcommands", len(all))
	}
	for _, path := range all {
		name := strings.Join(append([]string{"payments"}, path...), " ")
		var texts []string
		for _, way := range [][]string{
			append(slices.Clip(path), "-h"), append(slices.Clip(path), "--help"), append(slices.Clip(path), "help"), append([]string{"help"}, path...),
		} {
			if way[0] == "help" && len(path) != 1 {
				continue
			}
			out, problems, err := said(t, way...)
			if err != nil || problems != "" || !strings.Contains(out, "USAGE:\n   "+name) || !strings.Contains(out, "Examples:\n") {
				t.Errorf("%q: %v\n%s%s", way, err, out, problems)
			}
			texts = append(texts, out)
		}
		_, examples, _ := strings.Cut(texts[0], "Examples:")
		if !regexp.MustCompile(`(?m)^ +\S*.*payments`).MatchString(examples) {
			t.Errorf("%s has no example:\n%s", name, texts[0])
		}
		for _, text := range texts[1:] {
			if text != texts[0] {
				t.Errorf("%s helps in several ways:\n%s\n%s", name, texts[0], text)
			}
		}
	}
}

// The examples of the help are commands that are taken: none ends as a wrong usage of flags.
func TestExamplesOfTheHelpAreTaken(t *testing.T) {
	for _, path := range paths(t) {
		out, _, _ := said(t, append(slices.Clip(path), "-h")...)
		_, examples, _ := strings.Cut(out, "Examples:\n")
		examples, _, _ = strings.Cut(examples, "\n\n")
		for line := range strings.Lines(examples) {
			_, command, ok := strings.Cut(strings.TrimSpace(line), "payments ")
			if !ok || strings.Contains(line, "docker") || strings.Contains(line, "<(") || strings.Contains(line, " > ") {
				continue
			}
			args := regexp.MustCompile(`'[^']*'|\S+`).FindAllString(command, -1)
			for i := range args {
				args[i] = strings.Trim(args[i], "'")
			}
			if slices.Contains([]string{"demo", "doctor", "serve", "secrets", "welcome", "version", "simulator", "healthcheck", "completion"}, args[0]) {
				continue
			}
			var missing *config.Error
			if _, _, err := said(t, args...); !errors.As(err, &missing) {
				t.Errorf("%q of the help of %v: %v", command, path, err)
			}
		}
	}
}

func TestSubcommandsAreTold(t *testing.T) {
	page, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	var told, known []string
	for _, m := range regexp.MustCompile("(?m)^\\| `payments (\\w+)[^`]*` \\|").FindAllStringSubmatch(string(page), -1) {
		told = append(told, m[1])
	}
	for _, c := range (environment{}).commands() {
		known = append(known, c.Name)
	}
	known = append(known, "completion")
	slices.Sort(told)
	slices.Sort(known)
	if !slices.Equal(told, known) {
		t.Errorf("docs/commands.md tells of the subcommands\n%v, there are\n%v", told, known)
	}
}

func TestWrongUsageIsToldInOneSentence(t *testing.T) {
	for args, want := range map[string]string{
		"":                                      "name a subcommand of `payments`: serve, ",
		"pay":                                   `there is no subcommand "pay"`,
		"sagas":                                 "name a subcommand of `payments sagas`: list, show, retry",
		"sagas lst":                             "Did you mean \"list\"?",
		"audit now":                             `payments audit: unexpected argument "now"`,
		"audit -nothing":                        "payments audit: flag provided but not defined: -nothing",
		"audit -from":                           "payments audit: flag needs an argument: -from",
		"audit --from yesterday":                "-from must be a time",
		"audit -from 2026-11-02 -to 2026-11-01": "-to must be after -from",
		"sagas list -output yaml":               "must be table or json",
		"sagas list -limit many":                "-limit",
		"sagas list -state broken":              "-state must be one of running, ",
		"sagas show pay_1":                      "name one saga by its id",
		"sagas retry sag_01m8702cxwf0xvsswam8j18mgk": "-reason ",
		"healthcheck":           "name one URL",
		"healthcheck localhost": "must be an http or https URL",
		"replay orders":         "name what to rebuild: payment_view",
		"reconcile":             "-from is required and not set",
		"keys rotate":           "name one API key by its id",
		"secrets drop":          "name one variable of a keyset",
		"seed -payments 0":      "-payments, -merchants and -days must be 1 or more",
		"deadletters replay":    "name the blocked keys to replay, or -all",
	} {
		out, _, err := said(t, strings.Fields(args)...)
		if err == nil || exitCode(err) != exitUsage || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || out != "" {
			t.Errorf("payments %s: %v (exit code %d), want %q\n%s", args, err, exitCode(err), want, out)
		}
	}
}

func TestExitCodes(t *testing.T) {
	listening, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listening.Close()
	_, taken := net.Listen("tcp", listening.Addr().String())
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errViolated, exitFound},
		{errDiffers, exitFound},
		{payment.Errorf(payment.CodeNotFound, "There is no such saga."), exitFound},
		{usagef("-from is wrong"), exitUsage},
		{fmt.Errorf("a: %w", config.Missing("PAYMENTS_URL")), exitUsage},
		{fmt.Errorf("PAYMENTS_ADDR: %w", taken), exitUsage},
		{unreachableError{errors.New("the provider is away")}, exitUnreachable},
		{fmt.Errorf("ask: %w", context.DeadlineExceeded), exitUnreachable},
		{payment.Errorf(payment.CodeServiceUnavailable, "The provider cannot be asked."), exitUnreachable},
		{errors.Join(errOlderKeys, unreachableError{errors.New("gone")}), exitUnreachable},
		{fmt.Errorf("stopped: %w", context.Canceled), exitInterrupted},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}

// A helper that a shell of a pipeline can use: what shows something shows it as one JSON
// document, and wrong variables keep nobody from the help.
func TestJSONAndHelpNeedNoVariables(t *testing.T) {
	out, _, err := said(t, "secrets", "-output", "json")
	var fresh map[string]string
	if err == nil {
		err = json.Unmarshal([]byte(out), &fresh)
	}
	if err != nil || len(fresh) != len(stackSecrets) || fresh["PAYMENTS_API_KEY"] == "" {
		t.Errorf("%v: %s", err, out)
	}
	var stdout, stderr bytes.Buffer
	e := environment{wrong: errors.New("PAYMENTS_API_KEY_FILE names an empty file"), warnings: []string{"PAYMENTS_X is not known"}, stdout: &stdout, stderr: &stderr}
	if err := e.run(t.Context(), []string{"audit", "-h"}); err != nil || stderr.Len() > 0 {
		t.Errorf("help: %v, %s", err, &stderr)
	}
	if err := e.run(t.Context(), []string{"version"}); err == nil || exitCode(err) != exitUsage {
		t.Errorf("with a wrong file: %v", err)
	}
	e.wrong = nil
	if err := e.run(t.Context(), []string{"version"}); err != nil || stderr.String() != "payments: warning: PAYMENTS_X is not known\n" {
		t.Errorf("%v, %q", err, &stderr)
	}
}

func TestShellsComplete(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "pwsh"} {
		script, _, err := said(t, "completion", shell)
		if err != nil || !strings.Contains(script, "--generate-shell-completion") {
			t.Errorf("%s: %v\n%s", shell, err, script)
		}
		if path, err := exec.LookPath(shell); err == nil && shell != "pwsh" {
			check := exec.CommandContext(t.Context(), path, "-n")
			check.Stdin = strings.NewReader(script)
			if out, err := check.CombinedOutput(); err != nil {
				t.Errorf("%s does not take its script: %v\n%s", shell, err, out)
			}
		}
	}
	for typed, want := range map[string]string{"sagas": "accept_capture:", "sagas list --ol": "--older-than:", "keys cre": "create:"} {
		out, _, err := said(t, append(strings.Fields(typed), "--generate-shell-completion")...)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s", typed, err, out)
		}
	}
}

// Every command that the documentation names is one, with flags that it has.
func TestCommandsOfTheDocumentationAreTaken(t *testing.T) {
	found := 0
	var names []string
	for _, c := range (environment{}).commands() {
		names = append(names, c.Name)
	}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && slices.Contains([]string{".git", ".cache", "node_modules", "bench", ".data"}, d.Name()) {
			return filepath.SkipDir
		}
		if err != nil || d.IsDir() {
			return err
		}
		if ext := filepath.Ext(path); ext != ".md" && ext != ".yml" {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range regexp.MustCompile("(?m)(?:^(?:\\./bin/)?|`|&& |; |/)payments ([a-z]+(?: [^`#;|&\n]*)?)").FindAllStringSubmatch(string(content), -1) {
			var args []string
			for word := range strings.FieldsSeq(strings.NewReplacer("[", " ", "]", " ", "…", " ", "'", "", `"`, "", ",", " ", ")", " ").Replace(m[1])) {
				args = append(args, strings.TrimRight(word, ".:"))
			}
			if len(args) == 0 || !slices.Contains(names, args[0]) || slices.Contains([]string{"demo", "welcome", "secrets"}, args[0]) {
				continue // prose, or something that needs no variable and would be done
			}
			found++
			_, _, err := said(t, args...)
			if err != nil && (strings.Contains(err.Error(), "flag provided but not defined") || strings.Contains(err.Error(), "there is no subcommand")) {
				t.Errorf("%s: payments %s: %v", path, m[1], err)
			}
		}
		return nil
	})
	if err != nil || found < 60 {
		t.Errorf("%d commands, %v", found, err)
	}
}
