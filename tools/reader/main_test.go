package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"testing"

	"github.com/andybalholm/brotli"
)

// What is committed is what `make reader` writes, in both forms.
func TestTheReaderIsAsMade(t *testing.T) {
	const path = "../../internal/api/reader/scalar.js"
	read := func(path string) []byte {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	want, err := withSnippetHook(read(path))
	if err != nil {
		t.Fatal(err)
	}
	zipped, err := gzip.NewReader(bytes.NewReader(read(path + ".gz")))
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]io.Reader{"gzip": zipped, "brotli": brotli.NewReader(bytes.NewReader(read(path + ".br")))} {
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want %d: run `make reader` (%v)", name, len(got), len(want), err)
		}
	}
}
