// Command reader makes what is served under /docs of the script as npm has it: with a hook for
// page.html, compressed by gzip and brotli. `make reader` runs it.
package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"github.com/andybalholm/brotli"
)

func main() {
	if err := run(filepath.Join("..", "internal", "api", "reader")); err != nil {
		fmt.Fprintln(os.Stderr, "reader:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	path := filepath.Join(dir, "scalar.js")
	script, err := os.ReadFile(path) //nolint:gosec // the path is ours
	if err != nil {
		return err
	}
	if script, err = withSnippetHook(script); err != nil {
		return err
	}
	for suffix, compress := range map[string]func(io.Writer) (io.WriteCloser, error){
		".gz": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, gzip.BestCompression) },
		".br": func(w io.Writer) (io.WriteCloser, error) {
			return brotli.NewWriterLevel(w, brotli.BestCompression), nil
		},
	} {
		var b bytes.Buffer
		w, err := compress(&b)
		if err == nil {
			_, err = w.Write(script)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			return fmt.Errorf("compress: %w", err)
		}
		if err := os.WriteFile(path+suffix, b.Bytes(), 0o644); err != nil { //nolint:gosec // it is committed
			return err
		}
	}
	return nil
}

// snippetPrinter is where the script prints a request in a language (target) for a library of it
// (client). The names are the minifier's.
var snippetPrinter = regexp.MustCompile(`let (\w+)=\w+\(\)\.print\((\w+),(\w+),\w+\);return `)

// withSnippetHook lets page.html change the snippets. The script has no option for it.
func withSnippetHook(script []byte) ([]byte, error) {
	if n := len(snippetPrinter.FindAllIndex(script, -1)); n != 1 {
		return nil, errors.New("the script does not print snippets at one place: look for it anew")
	}
	return snippetPrinter.ReplaceAll(script, []byte(`${0}$1=$1&&finishSnippet($1,$2,$3),`)), nil
}
