package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const plantedList = `
commits_after: BASE
ignore: [old/]
retired:
  - {phrases: [hurry, hurried], instead: nudge}
  - {phrases: [parked key, parked keys], instead: blocked key, names: [inbox_parked_keys], files: [cmd/alias.go, kept/]}
`

func TestRun_ReportsRetiredWords(t *testing.T) {
	for _, c := range []struct {
		name, path, text string
		want             []string
	}{
		{"a word", "a.go", "package a\n// They hurry.\n", []string{`a.go:2: "hurry" is retired: use nudge`}},
		{"a part of an identifier", "a.go", "var unhurried, HurryOf, noHURRYNow int", []string{`a.go:1: "hurry" is retired`, `a.go:1: "hurry" is retired`}},
		{"another form", "a.md", "Hurried", []string{`a.md:1: "hurried" is retired`}},
		{"a phrase as three kinds of name", "a.go", "ParkedKey\nparked_keys\nparked-key\n", []string{"a.go:1:", "a.go:2:", "a.go:3:"}},
		{"a phrase across a line end", "a.go", "\t// a parked\n\t// key\n", []string{`a.go:1: "parked key" is retired: use blocked key`}},
		{"words that are no phrase", "a.go", "parked. Key\nparked, key\nunparked key\n", nil},
		{"an excepted name", "a.sql", "SELECT FROM inbox_parked_keys", nil},
		{"a longer name", "a.sql", "inbox_parked_keys_oldest", []string{"a.sql:1:"}},
		{"an excepted file", "cmd/alias.go", "parked key", nil},
		{"an excepted directory", "kept/b/c.go", "parked key", nil},
		{"the exception of another word", "cmd/alias.go", "parked key\nhurry", []string{"cmd/alias.go:2:"}},
		{"an ignored directory", "old/a.go", "hurry", nil},
		{"a binary file", "a.png", "\x00 hurry", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, list := repository(t)
			write(t, root, c.path, c.text)
			checkRun(t, root, list, c.want)
		})
	}
}

func TestRun_ReportsTrackedFiles(t *testing.T) {
	root, list := repository(t)
	write(t, root, "a.go", "hurry")
	write(t, root, "gone.go", "hurry")
	commit(t, root, "add two files")
	if err := os.Remove(filepath.Join(root, "gone.go")); err != nil {
		t.Fatal(err)
	}
	checkRun(t, root, list, []string{"a.go:1:"})
}

func TestRun_ReportsLongSubjects(t *testing.T) {
	root, list := repository(t)
	commit(t, root, strings.Repeat("ü", 72))
	checkRun(t, root, list, nil)
	commit(t, root, strings.Repeat("x", 73))
	checkRun(t, root, list, []string{": the subject has 73 characters, at most 72: xxx"})
}

func TestRun_RefusesAnUnknownBase(t *testing.T) {
	root, list := repository(t)
	replace(t, list, "commits_after: ", "commits_after: 0")
	if err := run(root, list, &strings.Builder{}); err == nil || !strings.Contains(err.Error(), "commits_after") {
		t.Errorf("run = %v, want an error that names commits_after", err)
	}
	clone := filepath.Join(t.TempDir(), "clone")
	gitIn(t, root, "commit", "--quiet", "--allow-empty", "-m", "a second")
	gitIn(t, root, "clone", "--quiet", "--depth", "1", "file://"+root, clone)
	write(t, clone, "cmd/alias.go", "parked key")
	write(t, clone, "kept/a.go", "parked key inbox_parked_keys")
	var out strings.Builder
	if err := run(clone, list, &out); err != nil || !strings.Contains(out.String(), "SKIPPED") {
		t.Errorf("in a shallow clone, run = %v and says %q, want that it skips the subjects", err, out.String())
	}
}

func TestRun_ReportsUnusedExceptions(t *testing.T) {
	root, list := repository(t)
	replace(t, list, "files: [", "files: [nowhere.go, ")
	checkRun(t, root, list, []string{`the exception nowhere.go of "parked key" is not needed`})
}

func TestReadList_RefusesBadEntries(t *testing.T) {
	for text, want := range map[string]string{
		"retired: []": "commits_after is missing",
		"commits_after: x\nretired: [{phrases: [a]}]":                              "entry 1: phrases or instead is missing",
		"commits_after: x\nretired: [{phrases: ['12'], instead: b}]":               `"12" has no word`,
		"commits_after: x\nretired: [{phrases: [a b, A_B], instead: b}]":           `"A_B" is listed twice`,
		"commits_after: x\nretired: [{phrases: [a], instead: b, exceptions: [c]}]": "exceptions",
	} {
		path := filepath.Join(t.TempDir(), "retired.yaml")
		write(t, filepath.Dir(path), "retired.yaml", text)
		if _, err := readList(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("readList of %q = %v, want an error that says %s", text, err, want)
		}
	}
}

// repository has one commit, which the list names, and a file for each exception.
func repository(t *testing.T) (root, list string) {
	t.Helper()
	for name, value := range map[string]string{
		"GIT_CONFIG_GLOBAL": os.DevNull, "GIT_CONFIG_SYSTEM": os.DevNull,
		"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.com",
	} {
		t.Setenv(name, value)
	}
	root = t.TempDir()
	gitIn(t, root, "init", "--quiet")
	write(t, root, "cmd/alias.go", "parked key")
	write(t, root, "kept/a.go", "parked key")
	write(t, root, "a.txt", "inbox_parked_keys")
	commit(t, root, "begin with a subject that is longer than the limit, which later commits have to keep")
	list = filepath.Join(t.TempDir(), "retired.yaml")
	write(t, filepath.Dir(list), "retired.yaml", strings.Replace(plantedList, "BASE", strings.TrimSpace(gitIn(t, root, "rev-parse", "HEAD")), 1))
	return root, list
}

// checkRun fails unless run finds what is wanted, in this order, and nothing else.
func checkRun(t *testing.T, root, list string, want []string) {
	t.Helper()
	var out strings.Builder
	err := run(root, list, &out)
	if (err != nil) != (len(want) > 0) {
		t.Errorf("run = %v", err)
	}
	var lines []string
	for line := range strings.Lines(out.String()) {
		lines = append(lines, line)
	}
	if len(lines) != len(want) {
		t.Fatalf("%d findings, want %d:\n%s", len(lines), len(want), out.String())
	}
	for i, line := range lines {
		if !strings.Contains(line, want[i]) {
			t.Errorf("finding %d is %q, want %q", i, line, want[i])
		}
	}
}

func commit(t *testing.T, root, subject string) {
	t.Helper()
	gitIn(t, root, "add", "--all")
	gitIn(t, root, "commit", "--quiet", "--allow-empty", "-m", subject)
}

func gitIn(t *testing.T, root string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func write(t *testing.T, root, path, text string) {
	t.Helper()
	path = filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func replace(t *testing.T, path, from, to string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), from) {
		t.Fatalf("%s lacks %q", path, from)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), from, to, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}
