package tools

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The client is what `make generate` writes from the document, as both stand.
func TestTheClientIsAsGenerated(t *testing.T) {
	fresh := filepath.Join(t.TempDir(), "api.gen.go")
	generate := exec.CommandContext(t.Context(), "go", "tool", "oapi-codegen",
		"-config", "../client/generate/config.yaml", "-o", fresh, "../internal/api/openapi.yaml")
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if read(t, fresh) != read(t, "../client/api.gen.go") {
		t.Error("client/api.gen.go is not what the OpenAPI document comes to: run `make generate`")
	}
}

// It asks for the version of the document that its types are made of.
func TestTheClientAsksForItsDocumentsVersion(t *testing.T) {
	if v := version(t); !strings.Contains(read(t, "../client/client.go"), `const Version = "`+v+`"`) {
		t.Errorf("client.Version is not the document's %s", v)
	}
}

// What the walk shows of the client is in a program that is compiled and linted.
func TestTheWalksGoIsThePrograms(t *testing.T) {
	indented := regexp.MustCompile(`(?m)^\t`)
	program := indented.ReplaceAllString(read(t, "../client/examples/pay/main.go"), "")
	blocks := regexp.MustCompile("(?s)\n```go\n(.*?)```\n").FindAllStringSubmatch(read(t, "../docs/walk.md"), -1)
	if len(blocks) != 1 || !strings.Contains(program, blocks[0][1]) {
		t.Errorf("docs/walk.md has %d blocks of Go, of which client/examples/pay/main.go has to be made", len(blocks))
	}
}
