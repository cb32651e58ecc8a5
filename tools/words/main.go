// Command words reports each retired name and phrase in the tree's files, and each commit
// subject that is too long. `make lint` runs it. retired.yaml lists the names and phrases.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

const maxSubject = 72

func main() {
	if err := run("..", filepath.Join("words", "retired.yaml"), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "words:", err)
		os.Exit(1) //nolint:forbidigo // main alone exits
	}
}

// run checks the git work tree at root, untracked files included. It writes one line per finding.
func run(root, list string, out io.Writer) error {
	l, err := readList(list)
	if err != nil {
		return err
	}
	files, err := git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	var found []string
	for _, path := range slices.Compact(slices.Sorted(strings.SplitSeq(files, "\x00"))) {
		if path == "" || l.ignores(path) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, path)) //nolint:gosec // a file of the tree
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, but not in the index
		}
		if err != nil {
			return err
		}
		if bytes.IndexByte(text, 0) >= 0 {
			continue // no text
		}
		found = append(found, l.search(path, string(text))...)
	}
	found = append(found, l.unused()...)
	long, err := longSubjects(root, l.CommitsAfter, out)
	if err != nil {
		return err
	}
	found = append(found, long...)
	for _, f := range found {
		if _, err := fmt.Fprintln(out, f); err != nil {
			return err
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("%d findings", len(found))
	}
	return nil
}

// longSubjects checks the commits after base. Merges are left out: GitHub words those that it tests.
func longSubjects(root, base string, out io.Writer) ([]string, error) {
	if _, err := git(root, "cat-file", "-e", base+"^{commit}"); err != nil {
		shallow, shallowErr := git(root, "rev-parse", "--is-shallow-repository")
		if shallowErr != nil || strings.TrimSpace(shallow) != "true" {
			return nil, fmt.Errorf("commits_after: %w", err)
		}
		_, err := fmt.Fprintf(out, "SKIPPED: the commit subjects, since this shallow clone lacks %s\n", base)
		return nil, err
	}
	log, err := git(root, "log", "--no-merges", "--format=%h %s", base+"..HEAD")
	if err != nil {
		return nil, err
	}
	var long []string
	for line := range strings.Lines(log) {
		commit, subject, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if n := utf8.RuneCountInString(subject); n > maxSubject {
			long = append(long, fmt.Sprintf("commit %s: the subject has %d characters, at most %d: %s", commit, n, maxSubject, subject))
		}
	}
	return long, nil
}

func git(root string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("git", args...) //nolint:gosec,noctx // the arguments are ours; git ends by itself
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
