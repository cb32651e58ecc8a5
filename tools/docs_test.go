package tools

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pages are those at the top and all of docs, by their path from the repository's root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"} {
		all[name] = read(t, "../"+name)
	}
	err := filepath.WalkDir("../docs", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".md" {
			all[strings.TrimPrefix(filepath.ToSlash(path), "../")] = read(t, path)
		}
		return err
	})
	if err != nil || len(all) < 2 {
		t.Fatalf("%d pages, %v", len(all), err)
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	fenced = regexp.MustCompile("(?ms)^ *```.*?\n *```$")
	link   = regexp.MustCompile(`\]\(([^()\s]+)\)`)
)

func TestLinksLeadSomewhere(t *testing.T) {
	all := pages(t)
	checked := 0
	for name, text := range all {
		for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			checked++
			target, fragment, _ := strings.Cut(m[1], "#")
			path := name
			if target != "" {
				path = filepath.ToSlash(filepath.Join(filepath.Dir(name), target))
			}
			if _, err := os.Stat(filepath.Join("..", path)); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
				continue
			}
			if fragment != "" && !slices.Contains(headings(all[path]), fragment) {
				t.Errorf("%s links to %s, which has no such heading", name, m[1])
			}
		}
	}
	if checked == 0 {
		t.Error("no page links to another")
	}
}

// headings are the anchors that a forge gives a page's headings.
func headings(text string) (anchors []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		kept := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r > 0x7f:
				return r
			}
			return -1
		}, strings.ToLower(m[1]))
		anchors = append(anchors, kept)
	}
	return anchors
}

// What a page names in backticks is there: paths, tests, and targets of make.
func TestPagesNameWhatExists(t *testing.T) {
	paths := regexp.MustCompile("`((?:cmd|internal|migrations|deploy|docs|scripts|test|tools|bench)/[A-Za-z0-9_./-]*)`")
	tests := regexp.MustCompile(`\bTest[A-Z]\w+`)
	targets := regexp.MustCompile("`make ([a-z-]+)[^`]*`")
	source := testSource(t)
	makefile := read(t, "../Makefile")
	for name, text := range pages(t) {
		for _, m := range paths.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
				t.Errorf("%s names %s, which is not there", name, m[1])
			}
		}
		for _, m := range tests.FindAllString(fenced.ReplaceAllString(text, ""), -1) {
			if !strings.Contains(source, "func "+m+"(") {
				t.Errorf("%s names %s, which is no test", name, m)
			}
		}
		for _, block := range fenced.FindAllString(text, -1) {
			for _, m := range tests.FindAllString(block, -1) { // a pattern of -run may be a test's beginning
				if !strings.Contains(source, "func "+m) {
					t.Errorf("%s has a block with %s, which begins no test's name", name, m)
				}
			}
		}
		for _, m := range targets.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s names make %s, which is no target", name, m[1])
			}
		}
	}
}

func testSource(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
			return filepath.SkipDir
		}
		if err == nil && strings.HasSuffix(path, "_test.go") {
			b.WriteString(read(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The first column of the README's configuration tables names each variable that
// the program knows, and no other.
func TestConfigurationTablesAreComplete(t *testing.T) {
	literal := regexp.MustCompile(`"(PAYMENTS_[A-Z0-9_]+)"`)
	known := map[string]bool{}
	for _, root := range []string{"../cmd", "../internal"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			for _, m := range literal.FindAllStringSubmatch(read(t, path), -1) {
				known[m[1]] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	told := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(PAYMENTS_[A-Z0-9_]+)` \\|").FindAllStringSubmatch(section(t, "Configuration"), -1) {
		if told[m[1]] {
			t.Errorf("README.md tells of %s twice", m[1])
		}
		told[m[1]] = true
	}
	same(t, "variable", known, told)
}

func TestSubcommandsAreTold(t *testing.T) {
	known, told := map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\t"(\w+)":\s+\{"`).FindAllStringSubmatch(read(t, "../cmd/payments/main.go"), -1) {
		known[m[1]] = true
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `payments (\\w+)[^`]*` \\|").FindAllStringSubmatch(section(t, "Subcommands"), -1) {
		told[m[1]] = true
	}
	same(t, "subcommand", known, told)
}

func same(t *testing.T, what string, known, told map[string]bool) {
	t.Helper()
	if len(known) == 0 {
		t.Fatalf("the code has no %s", what)
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if !told[name] {
			t.Errorf("README.md does not tell of the %s %s", what, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(told)) {
		if !known[name] {
			t.Errorf("README.md tells of the %s %s, which the code does not know", what, name)
		}
	}
}

// section of README.md under a heading of the second level.
func section(t *testing.T, heading string) string {
	t.Helper()
	_, after, ok := strings.Cut(read(t, "../README.md"), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("README.md has no section %q", heading)
	}
	s, _, _ := strings.Cut(after, "\n## ")
	return s
}
