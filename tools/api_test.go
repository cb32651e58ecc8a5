package tools

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const document = "../internal/api/openapi.yaml"

// changes lets scripts/api-changes.sh compare two documents, or all of the project's where none are given;
// recorded is the file of what passes.
func changes(ctx context.Context, t *testing.T, recorded string, documents ...string) (named string, ok bool) {
	t.Helper()
	c := exec.CommandContext(ctx, "../scripts/api-changes.sh", documents...)
	c.Env = append(os.Environ(), "RECORDED="+recorded)
	out, err := c.Output()
	failed, exited := errors.AsType[*exec.ExitError](err)
	if err != nil && (!exited || failed.ExitCode() != 1) {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out), err == nil
}

// version is the document's.
func version(t *testing.T) string {
	t.Helper()
	for line := range strings.Lines(read(t, document)) {
		if date, ok := strings.CutPrefix(line, "  version: "); ok {
			return strings.Trim(date, "'\n")
		}
	}
	t.Fatal("the document has no version")
	return ""
}

// newest is the released document of the newest version.
func newest(t *testing.T) string {
	t.Helper()
	return "../docs/api/released/" + version(t) + ".yaml"
}

// revised is the released document with one text in place of another.
func revised(t *testing.T, old, with string) string {
	t.Helper()
	released := read(t, newest(t))
	changed := strings.Replace(released, old, with, 1)
	if changed == released {
		t.Fatalf("the released document has no %q", old)
	}
	path := filepath.Join(t.TempDir(), "openapi.yaml")
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What the rules of docs/api/evolution.md call breaking is named, and what they call
// an addition passes.
func TestBreakingChangesAreNamed(t *testing.T) {
	nothing := filepath.Join(t.TempDir(), "breaking.md")
	if err := os.WriteFile(nothing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const member = "        amount_captured: {$ref: '#/components/schemas/Amount'}\n"
	for _, c := range []struct{ about, old, with, rule string }{
		{"a route is gone", "  /v1/payments/{id}/timeline:\n", "  /v1/payments/{id}/history:\n", "api-path-removed-without-deprecation"},
		{"an operation has another name", "operationId: cancelPayment\n", "operationId: stopPayment\n", "api-operation-id-removed"},
		{"a member of an answer is gone", member, "", "response-required-property-removed"},
		{"an optional member is gone", "        refunds: {$ref: '#/components/schemas/RefundList'}\n", "", "response-optional-property-removed"},
		{"a member may be missing", "amount_captured, amount_refunded, payment_method, capture_method, customer,", "amount_captured, amount_refunded, payment_method, customer,", "response-property-became-optional"},
		{"a member may be null", "        amount_captured: {$ref: '#/components/schemas/Amount'}\n", "        amount_captured: {type: [integer, 'null'], format: int64, minimum: 0, maximum: 999999999999}\n", "response-property-became-nullable"},
		{"a member of a request is required", "required: [amount, currency, payment_method, customer, order]", "required: [amount, currency, payment_method, customer, order, capture_method]", "request-property-became-required"},
		{"a value is taken no more", "enum: [automatic, manual]", "enum: [automatic]", "request-property-enum-value-removed"},
		{"a range is narrower", "minimum: 1, maximum: 100, default: 20}", "minimum: 1, maximum: 50, default: 20}", "request-parameter-max-decreased"},
		{"a default is another", "minimum: 1, maximum: 100, default: 20}", "minimum: 1, maximum: 100, default: 10}", "request-parameter-default-value-changed"},
		{"a pattern is another", "pattern: '^pm_[A-Za-z0-9][A-Za-z0-9._-]{0,60}$'", "pattern: '^pm_[A-Za-z0-9]{1,60}$'", "pattern-changed"},
		{"a header is taken no more", "        - $ref: '#/components/parameters/Prefer'\n", "", "request-parameter-removed"},
		{"a header is told no more", "            Read-After: {$ref: '#/components/headers/ReadAfter'}\n", "", "required-response-header-removed"},
		{"a success has another status", "        '202': {$ref: '#/components/responses/ChangingPayment'}\n", "", "response-success-status-removed"},

		{"a notice without a date", "operationId: cancelPayment\n", "operationId: cancelPayment\n      deprecated: true\n", "api-deprecated-sunset-missing"},
		{"a notice that is too short", "operationId: cancelPayment\n", "operationId: cancelPayment\n      deprecated: true\n      x-sunset: '" + time.Now().AddDate(0, 0, 170).Format(time.DateOnly) + "'\n", "api-sunset-date-too-small"},

		{"a notice in time", "operationId: cancelPayment\n", "operationId: cancelPayment\n      deprecated: true\n      x-sunset: '2999-01-01'\n", ""},
		{"a member more", member, member + "        amount_disputed: {$ref: '#/components/schemas/Amount'}\n", ""},
		{"a status more", "requires_review, succeeded, failed, canceled], description", "requires_review, succeeded, failed, canceled, disputed], description", ""},
		{"a problem code more", "report_not_ready, parked_message_moved", "report_not_ready, report_too_large, parked_message_moved", ""},
		{"a parameter more", "        - {name: customer, in: query,", "        - {name: channel, in: query, description: Only from here., schema: {type: string}}\n        - {name: customer, in: query,", ""},
		{"a wider range", "minimum: 1, maximum: 100, default: 20}", "minimum: 1, maximum: 200, default: 20}", ""},
	} {
		t.Run(c.about, func(t *testing.T) {
			named, ok := changes(t.Context(), t, nothing, newest(t), revised(t, c.old, c.with))
			if ok != (c.rule == "") || !strings.Contains(named, c.rule) {
				t.Errorf("passes: %v; want it named %q:\n%s", ok, c.rule, named)
			}
		})
	}
}

// A line of breaking.md lets its change pass and no other; it says why, and is there
// only as long as there is such a change.
func TestBreakingChangesAreRecorded(t *testing.T) {
	recorded := filepath.Join(t.TempDir(), "breaking.md")
	broken := revised(t, "operationId: cancelPayment\n", "operationId: stopPayment\n")
	write := func(lines string) {
		if err := os.WriteFile(recorded, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	named, _ := changes(t.Context(), t, recorded, newest(t), broken)
	line := regexp.MustCompile(`POST /v1/payments/\{id\}/cancel .*`).FindString(named)
	write("- " + line + "\n  Why: its name was taken\n")
	if named, ok := changes(t.Context(), t, recorded, newest(t), broken); !ok {
		t.Errorf("what is recorded fails: %s", named)
	}
	if _, ok := changes(t.Context(), t, recorded, newest(t), revised(t, "operationId: capturePayment\n", "operationId: takePayment\n")); ok {
		t.Error("what is not recorded passes beside what is")
	}
	if problems := unjustified(line+" [api-operation-id-removed]. ", "- "+line+"\n  Why: its name was taken\n"); len(problems) > 0 {
		t.Error(problems)
	}
	if len(unjustified(line, "- "+line+"\n")) != 1 || len(unjustified("", "- "+line+"\n  Why: its name was taken\n")) != 1 {
		t.Error("a line without a reason, or of nothing, is taken")
	}

}

// Within a version there are only additions, and between two what is recorded.
func TestVersionsDifferAsIsRecorded(t *testing.T) {
	if named, ok := changes(t.Context(), t, "../docs/api/breaking.md"); !ok {
		t.Errorf("not recorded:\n%s", named)
	}
	nothing := filepath.Join(t.TempDir(), "breaking.md")
	if err := os.WriteFile(nothing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	all, ok := changes(t.Context(), t, nothing)
	if ok || !strings.Contains(all, "failure_code") || strings.Contains(all, "Payments-Version") {
		t.Errorf("what the versions differ by passes unrecorded: %v\n%s", ok, all)
	}
	for _, p := range unjustified(all, read(t, "../docs/api/breaking.md")) {
		t.Error(p)
	}
}

// unjustified are the lines of breaking.md that give no reason, or that none of the
// named changes has.
func unjustified(named, page string) (problems []string) {
	lines := slices.Collect(strings.Lines(page))
	for i, line := range lines {
		change, entry := strings.CutPrefix(strings.TrimSpace(line), "- ")
		if !entry {
			continue
		}
		if i+1 == len(lines) || len(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(lines[i+1]), "Why:"))) < 10 || !strings.Contains(lines[i+1], "Why:") {
			problems = append(problems, "no reason: "+change)
		}
		if !strings.Contains(named, change) {
			problems = append(problems, "there is no such change any more: "+change)
		}
	}
	return problems
}

// A level that is set for a rule that oasdiff does not have would be of no effect.
func TestLevelsAreOfRules(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "tool", "oasdiff", "checks", "changelog").Output()
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) > 0 {
			rules[fields[0]] = true
		}
	}
	for line := range strings.Lines(read(t, "openapi/oasdiff-levels.txt")) {
		if name, _, _ := strings.Cut(line, " "); !rules[name] {
			t.Errorf("oasdiff has no rule %s", name)
		}
	}
}
