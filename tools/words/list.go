package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// list is retired.yaml.
type list struct {
	// CommitsAfter is the last commit whose subject is not checked.
	CommitsAfter string `yaml:"commits_after"`
	// Ignore lists files and directories that are not searched. A directory ends with a slash.
	Ignore  []string  `yaml:"ignore"`
	Retired []retired `yaml:"retired"`
}

// retired is one entry of the list.
type retired struct {
	// Phrases are found in any case, in names (ParkedKey, parked_key) and across line ends.
	Phrases []string `yaml:"phrases"`
	Instead string   `yaml:"instead"`
	// Names are identifiers of the contract that contain a phrase and stay.
	Names []string `yaml:"names"`
	// Files may contain the phrases. A directory ends with a slash.
	Files []string `yaml:"files"`

	words [][]string // the words of each phrase
	used  map[string]bool
}

func readList(path string) (*list, error) {
	f, err := os.Open(path) //nolint:gosec // the path is ours
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var l list
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	if err := d.Decode(&l); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if l.CommitsAfter == "" {
		return nil, fmt.Errorf("%s: commits_after is missing", path)
	}
	seen := map[string]bool{}
	for i := range l.Retired {
		r := &l.Retired[i]
		if err := r.prepare(seen); err != nil {
			return nil, fmt.Errorf("%s: entry %d: %w", path, i+1, err)
		}
	}
	return &l, nil
}

func (r *retired) prepare(seen map[string]bool) error {
	if len(r.Phrases) == 0 || r.Instead == "" {
		return errors.New("phrases or instead is missing")
	}
	r.used = map[string]bool{}
	for _, phrase := range r.Phrases {
		var words []string
		for _, w := range split(phrase) {
			words = append(words, w.text)
		}
		key := strings.Join(words, " ")
		if key == "" {
			return fmt.Errorf("the phrase %q has no word", phrase)
		}
		if seen[key] {
			return fmt.Errorf("the phrase %q is listed twice", phrase)
		}
		seen[key] = true
		r.words = append(r.words, words)
	}
	return nil
}

func (l *list) ignores(path string) bool {
	for _, pattern := range l.Ignore {
		if covers(pattern, path) {
			return true
		}
	}
	return false
}

func covers(pattern, path string) bool {
	return pattern == path || strings.HasSuffix(pattern, "/") && strings.HasPrefix(path, pattern)
}

// search returns a line per retired phrase in the text.
func (l *list) search(path, text string) []string {
	type finding struct {
		at   int
		text string
	}
	var all []finding
	words := split(text)
	at := map[string][]int{} // the indexes of each word
	for i, w := range words {
		at[w.text] = append(at[w.text], i)
	}
	for n := range l.Retired {
		r := &l.Retired[n]
		for p, phrase := range r.words {
			for _, i := range at[phrase[0]] {
				if !matches(text, words[i:], phrase) || r.excepts(path, text, words[i].start, words[i+len(phrase)-1].end) {
					continue
				}
				line := 1 + strings.Count(text[:words[i].start], "\n")
				all = append(all, finding{words[i].start, fmt.Sprintf("%s:%d: %q is retired: use %s", path, line, r.Phrases[p], r.Instead)})
			}
		}
	}
	slices.SortFunc(all, func(a, b finding) int { return cmp.Compare(a.at, b.at) })
	var found []string
	for _, f := range all {
		found = append(found, f.text)
	}
	return found
}

// excepts reports whether the phrase at text[start:end] may stay there.
func (r *retired) excepts(path, text string, start, end int) bool {
	name := text[nameStart(text, start):nameEnd(text, end)]
	for _, n := range r.Names {
		if n == name {
			r.used[n] = true
			return true
		}
	}
	for _, pattern := range r.Files {
		if covers(pattern, path) {
			r.used[pattern] = true
			return true
		}
	}
	return false
}

// unused returns a line per exception that excepts nothing.
func (l *list) unused() []string {
	var found []string
	for _, r := range l.Retired {
		for _, e := range append(append([]string(nil), r.Names...), r.Files...) {
			if !r.used[e] {
				found = append(found, fmt.Sprintf("retired.yaml: the exception %s of %q is not needed: remove it", e, r.Phrases[0]))
			}
		}
	}
	return found
}
