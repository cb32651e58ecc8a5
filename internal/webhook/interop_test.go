package webhook

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

type signed struct {
	Secret  string            `json:"secret"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

// newSigned is a delivery during a rotation, signed now by a new secret and by the returned one.
func newSigned(t *testing.T) signed {
	t.Helper()
	current, err := newSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	old, err := newSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := signed{Secret: old, Headers: map[string]string{}, Body: `{"type":"order.confirmed","data":{"order_reference":"Bücher 1"}}`}
	h := http.Header{}
	if err := sign(h, "whd_1", time.Now(), []byte(s.Body), []string{current, old}); err != nil {
		t.Fatal(err)
	}
	for name := range h {
		s.Headers[strings.ToLower(name)] = h.Get(name)
	}
	return s
}

func (s signed) run(t *testing.T, dir, program string, args ...string) (output string, err error) {
	t.Helper()
	input, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), program, args...)
	c.Dir, c.Stdin = dir, strings.NewReader(string(input))
	out, err := c.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func look(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not on this machine", program)
	}
	return path
}

func TestNodeLibraryAcceptsTheSignature(t *testing.T) {
	node, npm := look(t, "node"), look(t, "npm")
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "node"))); err != nil {
		t.Fatal(err)
	}
	install := exec.CommandContext(t.Context(), npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("npm cannot install standardwebhooks here: %v\n%s", err, out)
	}
	s := newSigned(t)
	if out, err := s.run(t, dir, node, "verify.js"); err != nil || out != "order.confirmed" {
		t.Errorf("the library refuses the signature: %v\n%s", err, out)
	}
	s.Body = strings.Replace(s.Body, "1", "2", 1)
	if out, err := s.run(t, dir, node, "verify.js"); err == nil || !strings.Contains(out, "No matching signature") {
		t.Errorf("the library takes another body: %v\n%s", err, out)
	}
}

// What docs/webhooks.md tells merchants to run is right, and refuses what it should.
func TestSamplesOfThePageVerify(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "webhooks.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ language, program, flag, call string }{
		{"python", "python3", "-c", "\nimport json, sys\nq = json.load(sys.stdin)\nprint(verify(q['secret'], q['headers'], q['body'].encode()))"},
		{"javascript", "node", "-e", "\nconst q = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));\nconsole.log(verify(q.secret, q.headers, Buffer.from(q.body)));"},
	} {
		t.Run(c.language, func(t *testing.T) {
			program := look(t, c.program)
			blocks := regexp.MustCompile("(?s)```"+c.language+"\n(.*?)```").FindAllSubmatch(page, -1)
			if len(blocks) != 1 {
				t.Fatalf("the page has %d blocks of %s", len(blocks), c.language)
			}
			verdict := func(s signed) string {
				t.Helper()
				out, err := s.run(t, "", program, c.flag, string(blocks[0][1])+c.call)
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				return strings.ToLower(out)
			}
			good := newSigned(t)
			if got := verdict(good); got != "true" {
				t.Errorf("a right signature: %s", got)
			}
			altered := good
			altered.Body += " "
			other := good
			other.Secret = newSigned(t).Secret
			old := newSigned(t)
			h := http.Header{}
			if err := sign(h, "whd_1", time.Now().Add(-time.Hour), []byte(old.Body), []string{old.Secret}); err != nil {
				t.Fatal(err)
			}
			old.Headers["webhook-timestamp"], old.Headers["webhook-signature"] = h.Get(headerTimestamp), h.Get(headerSignature)
			for what, s := range map[string]signed{"another body": altered, "another secret": other, "an old time": old} {
				if got := verdict(s); got != "false" {
					t.Errorf("%s: %s", what, got)
				}
			}
		})
	}
}
