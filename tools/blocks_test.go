package tools

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// block is a shell block of a page, with what the page says that it prints.
type block struct {
	page    string
	line    int
	command string
	printed *string // nil: the page does not say
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

var fence = regexp.MustCompile("^( *(?:- |[0-9]+\\. )?)```(.*)$")

// blocks are the shell blocks of a page in order. A block of text right below one is what it prints.
func blocks(t *testing.T, page, text string) (all []block) {
	t.Helper()
	lines := strings.Split(text, "\n")
	last := -1 // the line behind the last shell block
	for i := 0; i < len(lines); i++ {
		m := fence.FindStringSubmatch(lines[i])
		if m == nil {
			continue
		}
		end := i + 1
		for end < len(lines) && strings.TrimSpace(lines[end]) != "```" {
			lines[end] = strings.TrimPrefix(lines[end], strings.Repeat(" ", len(m[1])))
			end++
		}
		if end == len(lines) {
			t.Fatalf("%s:%d: the block has no end", page, i+1)
		}
		content := strings.Join(lines[i+1:end], "\n") + "\n"
		switch m[2] {
		case "sh":
			all = append(all, block{page: page, line: i + 1, command: content})
			last = end + 1
		case "text":
			if i == last {
				all[len(all)-1].printed = &content
			}
		case "bash", "zsh", "shell", "console":
			t.Errorf("%s:%d: write ```sh, so that the block is run", page, i+1)
		}
		i = end
	}
	return all
}

// readingOrder is that of the index: README.md, the index, and what it links to.
func readingOrder(t *testing.T) []string {
	t.Helper()
	all := pages(t)
	order := []string{"README.md", "docs/README.md"}
	for _, m := range link.FindAllStringSubmatch(all["docs/README.md"], -1) {
		path := "docs/" + strings.TrimPrefix(m[1], "./")
		if _, ok := all[path]; ok && !slices.Contains(order, path) {
			order = append(order, path)
		}
	}
	return order
}

// Each page of docs is in the index, or in the index of its directory, which is in it.
func TestTheIndexHasEachPage(t *testing.T) {
	order := readingOrder(t)
	all := pages(t)
	for page := range all {
		dir, _, nested := strings.Cut(strings.TrimPrefix(page, "docs/"), "/")
		if !strings.HasPrefix(page, "docs/") || slices.Contains(order, page) {
			continue
		}
		index := "docs/" + dir + "/README.md"
		name := page[strings.LastIndex(page, "/")+1:]
		if !nested || !slices.Contains(order, index) || !strings.Contains(all[index], "]("+name+")") {
			t.Errorf("docs/README.md does not lead to %s", page)
		}
	}
}

// exception is a block that `make docs-test` does not run. docs/testing.md lists them for readers.
type exception struct{ page, begins, reason string }

// reasons are those that keep a block from being run.
var reasons = []string{
	"starts the demo itself", // which has to be up
	"needs Docker",
	"runs tests",       // which `make test` runs
	"runs a benchmark", // for minutes or hours
	"a drill runs it",  // `make drills`, against servers that it stops
	"needs a fault first",
	"needs a second person's key",
	"changes the running secrets",
	"builds",
}

func exceptions(t *testing.T) (all []exception) {
	t.Helper()
	_, list, ok := strings.Cut(read(t, "../docs/testing.md"), "\n## Examples that are not run\n")
	if !ok {
		t.Fatal("docs/testing.md does not list the examples that are not run")
	}
	for _, m := range regexp.MustCompile("(?m)^\\| \\[[^]]+\\]\\(([^)]+)\\) \\| `([^`]+)` \\| ([^|]+) \\|$").FindAllStringSubmatch(list, -1) {
		page := "docs/" + m[1]
		if name, above := strings.CutPrefix(m[1], "../"); above {
			page = name
		}
		all = append(all, exception{page, m[2], m[3]})
	}
	return all
}

// covers tells whether the exception is of the block. A directory's index stands for its pages.
func (e exception) covers(b block) bool {
	if dir, ok := strings.CutSuffix(e.page, "README.md"); ok && e.begins == "*" {
		return strings.HasPrefix(b.page, dir)
	}
	return e.page == b.page && strings.HasPrefix(b.command, e.begins)
}

// runnable are the blocks of all pages in reading order without the listed ones. Each listed one is of
// a block, and has a reason of those that count.
func runnable(t *testing.T) (run []block) {
	t.Helper()
	listed := exceptions(t)
	used := make([]bool, len(listed))
	all := pages(t)
	order := readingOrder(t)
	for page := range all {
		if !slices.Contains(order, page) {
			order = append(order, page)
		}
	}
	slices.Sort(order[len(readingOrder(t)):])
	for _, page := range order {
		for _, b := range blocks(t, page, all[page]) {
			skip := false
			for i, e := range listed {
				if e.covers(b) {
					used[i], skip = true, true
				}
			}
			if !skip {
				run = append(run, b)
			}
		}
	}
	for i, e := range listed {
		if !used[i] {
			t.Errorf("docs/testing.md lists a block of %s that begins with %q, and there is none", e.page, e.begins)
		}
		if !slices.Contains(reasons, e.reason) {
			t.Errorf("docs/testing.md does not run a block of %s since it %q, which is none of %q", e.page, e.reason, reasons)
		}
	}
	return run
}

func TestBlocksAreRunOrListed(t *testing.T) {
	// An interactive zsh takes no comments: the words of one are arguments.
	comment := regexp.MustCompile(`(?m)(^| )# .*$`)
	for page, text := range pages(t) {
		for _, b := range blocks(t, page, text) {
			if m := comment.FindString(b.command); m != "" && !strings.HasPrefix(page, "docs/runbooks/") {
				t.Errorf("%s has a comment, which zsh takes for arguments: %s", b, m)
			}
		}
	}
	for _, b := range runnable(t) {
		if strings.Contains(b.command, "…") {
			t.Errorf("%s has a placeholder (…), so it can be neither pasted nor run:\n%s", b, b.command)
		}
	}
}

// What differs from run to run, and what takes its place.
var varying = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\b([a-z]+)_([0-9a-z]{16,}|…)`), "${1}_ID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`\b\d\d:\d\d:\d\d\.\d+`), "TIME"},
	{regexp.MustCompile(`\b\d+(\.\d+)?(ms|s|µs)\b`), "DURATION"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:PORT"},
	{regexp.MustCompile(`(?m)^(Date|Read-After|Content-Length|Ratelimit): .*$`), "$1: VALUE"},
	{regexp.MustCompile(`"next_cursor":"[^"]+"`), `"next_cursor":"CURSOR"`},
	{regexp.MustCompile(`\b[0-9a-f]{12,}(\b|…)`), "HEX"},
	{regexp.MustCompile(`\r`), ""},
	{regexp.MustCompile(`[ \t]+`), " "},
	{regexp.MustCompile(`(?m)^ | $`), ""},
	{regexp.MustCompile(`(?m)^-+(\+-+)*$`), "---"},
}

func normal(text string) string {
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.by)
	}
	return strings.TrimRight(text, "\n") + "\n"
}

// matches tells whether a page's text is what was printed. `…` stands for the rest of a word or
// line, and alone on a line for any lines.
func matches(page, printed string) bool {
	var pattern strings.Builder
	pattern.WriteString("^")
	for line := range strings.Lines(normal(page)) {
		if line == "…\n" {
			pattern.WriteString(`(?:.*\n)*?`)
			continue
		}
		pattern.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*"))
	}
	pattern.WriteString("$")
	return regexp.MustCompile(pattern.String()).MatchString(normal(printed))
}

// The comparison itself: what it takes for the same, and what it must not.
func TestWhatAPageSaysIsCompared(t *testing.T) {
	for _, c := range []struct {
		page, printed string
		same          bool
	}{
		{"{\"id\":\"pay_01m87hse0ffae8wgd6kmj60smw\"}\n", "{\"id\":\"pay_01m8702cy5fphv5hny58eh8vd3\"}\n", true},
		{"pay_… succeeded\n", "pay_01m8702cy5fphv5hny58eh8vd3 succeeded\n", true},
		{"pay_… succeeded\n", "pay_01m8702cy5fphv5hny58eh8vd3 failed\n", false},
		{"\"amount\":4998\n", "\"amount\":4999\n", false},
		{"a\n…\nd\n", "a\nb\nc\nd\n", true},
		{"a\n…\nd\n", "a\nb\nc\n", false},
		{"a\n", "a\nb\n", false},
		{"a\nb\n", "a\n", false},
		{"ID   STATE\n1    x\n", "ID STATE\n1 x\n", true},
		{"HTTP/1.1 200 OK\nDate: Tue, 24 Nov 2026 19:51:10 GMT\n", "HTTP/1.1 200 OK\r\nDate: Mon, 30 Nov 2026 10:00:00 GMT\r\n", true},
		{"HTTP/1.1 200 OK\n", "HTTP/1.1 202 Accepted\n", false},
		{"\"code\":\"idempotency_key_reused\"\n", "\"code\":\"idempotency_key_missing\"\n", false},
	} {
		if got := matches(c.page, c.printed); got != c.same {
			t.Errorf("%q and %q are the same: %v, want %v", c.page, c.printed, got, c.same)
		}
	}
}
