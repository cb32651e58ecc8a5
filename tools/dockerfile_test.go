package tools

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestDockerfile(t *testing.T) {
	b, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	file := string(b)

	from := regexp.MustCompile(`(?m)^FROM (?:--platform=\$BUILDPLATFORM )?(\S+)`).FindAllStringSubmatch(file, -1)
	if len(from) != 2 {
		t.Fatalf("%d stages, want 2", len(from))
	}
	goImage := regexp.MustCompile(`^golang:(\d+\.\d+)\.\d+-trixie(@sha256:[0-9a-f]{64})?$`).FindStringSubmatch(from[0][1])
	if goImage == nil {
		t.Fatalf("the first stage is from %s, want golang with a full version on trixie", from[0][1])
	}
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(mod)); goImage[1] != want[1] {
		t.Errorf("the image builds with Go %s and go.mod says %s", goImage[1], want[1])
	}
	if !regexp.MustCompile(`^gcr\.io/distroless/static-debian13:nonroot(@sha256:[0-9a-f]{64})?$`).MatchString(from[1][1]) {
		t.Errorf("the last stage is from %s, want distroless/static-debian13:nonroot", from[1][1])
	}

	last := file[strings.LastIndex(file, "\nFROM "):]
	for _, want := range []string{"\nUSER 65532:65532\n", "\nENTRYPOINT [\"/payments\"]\n", "\nCMD [\"serve\"]\n"} {
		if !strings.Contains(last, want) {
			t.Errorf("the last stage lacks %q", strings.TrimSpace(want))
		}
	}
	// Built on the machine's own platform for the one that is asked for.
	for _, want := range []string{"FROM --platform=$BUILDPLATFORM golang:", "\nARG TARGETOS\n", "\nARG TARGETARCH\n", "GOOS=$TARGETOS GOARCH=$TARGETARCH go build"} {
		if !strings.Contains(file, want) {
			t.Errorf("the image is not built for the platform that is asked for: %q is missing", strings.TrimSpace(want))
		}
	}
	if m := regexp.MustCompile(`(?mi)^(ENV|ARG)\s.*(password|secret|token|keyset|pepper|key).*$`).FindString(file); m != "" {
		t.Errorf("a secret has no place in an image: %s", m)
	}
}

// .dockerignore leaves everything out and lets in what the binary is built of.
func TestDockerignore(t *testing.T) {
	b, err := os.ReadFile("../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "\n*\n") {
		t.Error(".dockerignore does not begin by leaving everything out")
	}
	var kept []string
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			kept = append(kept, name)
			if strings.HasPrefix(name, ".") || name == "*" {
				t.Errorf(".dockerignore lets %s into the build", name)
			}
		}
	}

	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}", "./cmd/payments")
	list.Dir = ".."
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("list what cmd/payments is built of: %v", err)
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for dir := range strings.FieldsSeq(string(out)) {
		rel, err := filepath.Rel(root, dir)
		if top, _, _ := strings.Cut(rel, "/"); err != nil || !slices.Contains(kept, top) {
			t.Errorf("the binary is built of %s, which .dockerignore leaves out", rel)
		}
	}
}
