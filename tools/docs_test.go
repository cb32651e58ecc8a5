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

	"go.yaml.in/yaml/v3"
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

// The first column of the tables of docs/configuration.md names each variable that the program
// knows, and no other.
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
	for _, m := range regexp.MustCompile("(?m)^\\| `(PAYMENTS_[A-Z0-9_]+)` \\|").FindAllStringSubmatch(read(t, "../docs/configuration.md"), -1) {
		if told[m[1]] {
			t.Errorf("docs/configuration.md tells of %s twice", m[1])
		}
		told[m[1]] = true
	}
	same(t, "docs/configuration.md", "variable", known, told)
}

func same(t *testing.T, page, what string, known, told map[string]bool) {
	t.Helper()
	if len(known) == 0 {
		t.Fatalf("the code has no %s", what)
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if !told[name] {
			t.Errorf("%s does not name the %s %s", page, what, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(told)) {
		if !known[name] {
			t.Errorf("%s names the %s %s, which does not exist", page, what, name)
		}
	}
}

func TestMakeTargetsAreTold(t *testing.T) {
	known, told := map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):.*## (.+)$`).FindAllStringSubmatch(read(t, "../Makefile"), -1) {
		known[m[1]+" "+m[2]] = true
	}
	_, list, _ := strings.Cut(read(t, "../docs/commands.md"), "\n## Make\n")
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z-]+) +(.+)$`).FindAllStringSubmatch(list, -1) {
		told[m[1]+" "+m[2]] = true
	}
	same(t, "docs/commands.md", "target", known, told)
}

func TestRoutesAreTold(t *testing.T) {
	var document struct {
		Paths map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "../internal/api/openapi.yaml")), &document); err != nil {
		t.Fatal(err)
	}
	known, told := map[string]bool{}, map[string]bool{}
	for path, item := range document.Paths {
		for _, method := range []string{"get", "put", "post", "patch", "delete"} {
			if _, ok := item[method]; ok {
				known[strings.ToUpper(method)+" "+path] = true
			}
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z]+ /[^`]*)` \\|").FindAllStringSubmatch(read(t, "../docs/routes.md"), -1) {
		told[m[1]] = true
	}
	same(t, "docs/routes.md", "route", known, told)
}

// The first screen shows what it is and how it flows, and the page can be read in one go.
func TestTheReadmeIsShort(t *testing.T) {
	lines := strings.Split(strings.TrimSuffix(read(t, "../README.md"), "\n"), "\n")
	if len(lines) > 150 {
		t.Errorf("README.md has %d lines, want 150 at most", len(lines))
	}
	begin := slices.Index(lines, "```mermaid")
	if begin < 0 {
		t.Fatal("README.md has no diagram")
	}
	if end := begin + slices.Index(lines[begin:], "```"); end >= 40 {
		t.Errorf("the diagram of README.md ends in line %d, want 40 at most", end+1)
	}
}

// The map of README.md names each directory at the top and each package of internal.
func TestTheReadmesMapIsComplete(t *testing.T) {
	_, after, _ := strings.Cut(read(t, "../README.md"), "\n## The map\n")
	chart, _, _ := strings.Cut(after, "\n## ")
	known, told := map[string]bool{}, map[string]bool{}
	for _, root := range []string{"..", "../internal"} {
		entries, err := os.ReadDir(root)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && e.Name() != "bin" {
				known[e.Name()] = true
			}
		}
	}
	for name := range known {
		if regexp.MustCompile(`\b` + name + `\b`).MatchString(chart) {
			told[name] = true
		}
	}
	same(t, "README.md", "directory", known, told)
}

// The patterns of README.md are the pages of docs/patterns.
func TestTheReadmeNamesEachPattern(t *testing.T) {
	known, told := map[string]bool{}, map[string]bool{}
	files, err := filepath.Glob("../docs/patterns/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name := filepath.Base(f); name != "README.md" {
			known[name] = true
		}
	}
	for _, m := range regexp.MustCompile(`\| \[[^]]+\]\(docs/patterns/([^)]+)\)`).FindAllStringSubmatch(read(t, "../README.md"), -1) {
		told[m[1]] = true
	}
	same(t, "README.md", "pattern", known, told)
}

// A pattern's page fits on two screens and has one form.
func TestPatternPagesHaveOneForm(t *testing.T) {
	files, err := filepath.Glob("../docs/patterns/*.md")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d pages, %v", len(files), err)
	}
	for _, path := range files {
		if filepath.Base(path) == "README.md" {
			continue
		}
		page := "docs/patterns/" + filepath.Base(path)
		text := read(t, path)
		if n := strings.Count(text, "\n"); n > 120 {
			t.Errorf("%s has %d lines, want 120 at most: move what is too much to docs/details", page, n)
		}
		if !strings.Contains(text, "\n```mermaid\n") {
			t.Errorf("%s has no diagram", page)
		}
		rest := text
		for _, heading := range []string{"The failure", "How it is done here", "What it must not be mistaken for", "What it costs", "Its limits", "Sources"} {
			_, after, ok := strings.Cut(rest, "\n## "+heading+"\n")
			if !ok {
				t.Errorf("%s has no section %q in its place", page, heading)
				continue
			}
			rest = after
		}
		shown := false
		for _, b := range blocks(t, page, text) {
			shown = shown || b.printed != nil
		}
		if !shown {
			t.Errorf("%s shows no command with its output", page)
		}
		if !strings.Contains(text, "](../../internal/") {
			t.Errorf("%s leads to no code", page)
		}
	}
}
