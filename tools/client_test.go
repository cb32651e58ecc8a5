package tools

import (
	"os/exec"
	"path/filepath"
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
