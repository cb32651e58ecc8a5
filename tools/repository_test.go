package tools

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The license is the text of the Apache Software Foundation, to the letter. The client is a module
// of its own, so it carries the text as well.
func TestLicense(t *testing.T) {
	const apache2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
	for _, path := range []string{"../LICENSE", "../client/LICENSE"} {
		sum := sha256.Sum256([]byte("\n" + read(t, path))) // the published text begins with an empty line
		if got := hex.EncodeToString(sum[:]); got != apache2 {
			t.Errorf("%s is not the text of the Apache License 2.0", path)
		}
	}
	for _, document := range []string{"../internal/api/openapi.yaml", "../internal/api/versions/2026-11-01.yaml"} {
		if !strings.Contains(read(t, document), "license: {name: Apache License 2.0, identifier: Apache-2.0}") {
			t.Errorf("%s names another license", document)
		}
	}
}

// The workflow runs .ci/run and has no check of its own, so that what is green there is green here.
func TestWorkflowRunsCI(t *testing.T) {
	var workflow struct {
		Permissions map[string]string `yaml:"permissions"`
		Jobs        map[string]struct {
			TimeoutMinutes int `yaml:"timeout-minutes"`
			Steps          []struct {
				Uses string         `yaml:"uses"`
				Run  string         `yaml:"run"`
				With map[string]any `yaml:"with"`
			} `yaml:"steps"`
		} `yaml:"jobs"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "../.github/workflows/ci.yml")), &workflow); err != nil {
		t.Fatal(err)
	}
	if len(workflow.Permissions) != 1 || workflow.Permissions["contents"] != "read" {
		t.Errorf("the workflow has the permissions %v, want to read the contents alone", workflow.Permissions)
	}
	goImage := regexp.MustCompile(`(?m)^FROM .*golang:(\d+\.\d+\.\d+)-`).FindStringSubmatch(read(t, "../Dockerfile"))
	if goImage == nil {
		t.Fatal("the Dockerfile names no version of Go")
	}
	pinned := regexp.MustCompile(`^[a-z-]+/[a-z-]+@[0-9a-f]{40}$`)
	for name, job := range workflow.Jobs {
		if job.TimeoutMinutes == 0 {
			t.Errorf("job %s may run for six hours", name)
		}
		ran := false
		for _, step := range job.Steps {
			if step.Uses != "" && !pinned.MatchString(step.Uses) {
				t.Errorf("job %s uses %s, which is not pinned to a commit", name, step.Uses)
			}
			if v, ok := step.With["go-version"]; ok && v != goImage[1] {
				t.Errorf("job %s builds with Go %v and the Dockerfile with %s", name, v, goImage[1])
			}
			ran = ran || step.Run == ".ci/run"
		}
		if !ran {
			t.Errorf("job %s does not run .ci/run", name)
		}
	}
	if len(workflow.Jobs) == 0 {
		t.Error("the workflow has no job")
	}
	info, err := os.Stat("../.ci/run")
	if err != nil || info.Mode()&0o111 == 0 {
		t.Errorf(".ci/run cannot be executed (%v)", err)
	}
}

// Each change that breaks a client is in the changelog, and each section of the changelog is one
// of Keep a Changelog or names what breaks.
func TestChangelog(t *testing.T) {
	text := read(t, "../CHANGELOG.md")
	for _, m := range regexp.MustCompile(`(?m)^### (.+)$`).FindAllStringSubmatch(text, -1) {
		if !slices.Contains([]string{"Breaking", "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}, m[1]) {
			t.Errorf("CHANGELOG.md has a section %q", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### From \S+ to (\S+)$`).FindAllStringSubmatch(read(t, "../docs/api/breaking.md"), -1) {
		if !strings.Contains(text, "API version `"+m[1]+"`") {
			t.Errorf("CHANGELOG.md does not name the API version %s", m[1])
		}
	}
}
