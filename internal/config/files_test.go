package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"payments/internal/secret"
)

func secretFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every variable of Load can come from a file.
func TestAFileGivesAVariableItsValue(t *testing.T) {
	env := complete(t)
	var environ []string
	for name, value := range env {
		environ = append(environ, name+FileSuffix+"="+secretFile(t, value+"\n"))
	}
	lookup, err := WithFiles(environ)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(lookup)
	if err != nil || c.DatabaseURL != env["PAYMENTS_DATABASE_URL"] || c.Pepper == nil || c.Cipher == nil {
		t.Errorf("config = %+v, %v", c, err)
	}
	if want, err := secret.ParseMAC(env["PAYMENTS_PEPPER_KEYSET"]); err != nil || !slices.Equal(c.Pepper.MAC([]byte("a")), want.MAC([]byte("a"))) {
		t.Errorf("the pepper of the file is another one (%v)", err)
	}
}

func TestLineBreaksAtAFilesEndAreNotItsValue(t *testing.T) {
	for content, want := range map[string]string{
		"s3cret": "s3cret", "s3cret\n": "s3cret", "s3cret\r\n": "s3cret", "s3cret\n\n": "s3cret", "two\nlines \n": "two\nlines ",
	} {
		lookup, err := WithFiles([]string{"PAYMENTS_API_KEY_FILE=" + secretFile(t, content)})
		if got, ok := lookup("PAYMENTS_API_KEY"); err != nil || !ok || got != want {
			t.Errorf("%q gives %q, %v, %v; want %q", content, got, ok, err, want)
		}
	}
}

func TestVariablesWithoutFilesAreAsTheyWere(t *testing.T) {
	lookup, err := WithFiles([]string{
		"PAYMENTS_ADDR=:1", "PAYMENTS_ADDR=:2", "PAYMENTS_ADDR_FILE=", "PAYMENTS_URL=", "PAYMENTS_URL_FILE=" + secretFile(t, "http://a"),
		"PAYMENTS__FILE=/away", "SSL_CERT_FILE=/away", "POSTGRES_PASSWORD_FILE=/away", "EMPTY", "A=b=c",
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"PAYMENTS_ADDR": ":1", "PAYMENTS_URL": "http://a", "A": "b=c", "EMPTY": "", "SSL_CERT_FILE": "/away"} {
		if got, ok := lookup(name); got != want || !ok {
			t.Errorf("%s = %q, %v; want %q", name, got, ok, want)
		}
	}
	if got, ok := lookup("PAYMENTS_DATABASE_URL"); ok {
		t.Errorf("a variable that is not set is %q", got)
	}
}

// No error repeats what the variable or the file holds: either may be the secret.
func TestWrongFilesAreRefused(t *testing.T) {
	const s3cret = "s3cret"
	for _, test := range []struct{ path, want string }{
		{filepath.Join(t.TempDir(), s3cret), "must name a readable file: no such file or directory"},
		{t.TempDir(), "must name a readable file: is a directory"},
		{s3cret, "must name a readable file: no such file or directory"},
		{secretFile(t, ""), "names an empty file"},
		{secretFile(t, "\r\n\n"), "names an empty file"},
		{secretFile(t, s3cret+"\x00"), "names a file that is not text"},
		{secretFile(t, strings.Repeat(s3cret, 1<<20)), "names a file of more than 1048576 bytes"},
	} {
		_, err := WithFiles([]string{"PAYMENTS_API_KEY_FILE=" + test.path})
		if want := "PAYMENTS_API_KEY_FILE " + test.want; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestAVariableAndItsFileAreNotBothTaken(t *testing.T) {
	_, err := WithFiles([]string{
		"PAYMENTS_API_KEY=s3cret", "PAYMENTS_API_KEY_FILE=" + secretFile(t, "s3cret"),
		"PAYMENTS_DATABASE_URL_FILE=/nowhere/s3cret",
	})
	want := "PAYMENTS_API_KEY and PAYMENTS_API_KEY_FILE are both set: set one of them\n" +
		"PAYMENTS_DATABASE_URL_FILE must name a readable file: no such file or directory"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
