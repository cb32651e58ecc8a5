package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// binariesVariable names a directory with initdb and postgres; it then is the only
// one that is looked at.
const binariesVariable = "PAYMENTS_POSTGRES_BIN"

const fetchedMajor = "17"

// fetchable are the builds that embedded-postgres knows, by major version.
var fetchable = map[string]embeddedpostgres.PostgresVersion{
	"14": embeddedpostgres.V14, "15": embeddedpostgres.V15, "16": embeddedpostgres.V16,
	"17": embeddedpostgres.V17, "18": embeddedpostgres.V18,
}

var usualPlaces = []string{
	"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin",
	"/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin", "/Applications/Postgres.app/Contents/Versions/*/bin",
}

// cache of fetched binaries must be in reach of who runs them; another user than root
// cannot pass through root's home.
func (p *Postgres) cache() string {
	if p.config.Cache != "" {
		return p.config.Cache
	}
	if user, err := os.UserCacheDir(); err == nil && !p.account.other {
		return filepath.Join(user, "payments")
	}
	return filepath.Join(p.config.Dir, "binaries")
}

// findBinaries looks where binariesVariable says, or else in PATH, in the usual
// places (newest first) and in the cache, and at last fetches them. A major version
// other than "" is that of an existing cluster, which no other version can read.
func findBinaries(ctx context.Context, major, cache string) (string, error) {
	if dir := os.Getenv(binariesVariable); dir != "" {
		if err := usable(ctx, dir, major); err != nil {
			return "", fmt.Errorf("no Postgres to start: %s names %s, but %w", binariesVariable, dir, err)
		}
		return dir, nil
	}
	var tried []string
	for _, dir := range candidates() {
		err := usable(ctx, dir, major)
		if err == nil {
			return dir, nil
		}
		tried = append(tried, fmt.Sprintf("%s (%v)", dir, err))
	}
	if len(tried) == 0 {
		tried = append(tried, "initdb is neither in PATH nor in any of "+strings.Join(usualPlaces, ", "))
	}
	dir, err := fetchBinaries(ctx, major, cache, "")
	if err == nil {
		return dir, nil
	}
	return "", fmt.Errorf("no Postgres to start: tried %s; %w; install Postgres or set %s", strings.Join(tried, ", "), err, binariesVariable)
}

func candidates() []string {
	var dirs []string
	if path, err := exec.LookPath("initdb"); err == nil {
		if program, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(program))
		}
	}
	for _, place := range usualPlaces {
		found, _ := filepath.Glob(place) // the patterns are well formed
		slices.SortFunc(found, func(a, b string) int {
			return strings.Compare(fmt.Sprintf("%3d%s", len(b), b), fmt.Sprintf("%3d%s", len(a), a)) // 9 comes before 17
		})
		for _, dir := range found {
			if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil && !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

var versionLine = regexp.MustCompile(`PostgreSQL\) (\d+)`)

func usable(ctx context.Context, dir, major string) error {
	for _, program := range []string{"initdb", "postgres"} {
		out, err := exec.CommandContext(ctx, filepath.Join(dir, program), "--version").CombinedOutput()
		if err != nil {
			return fmt.Errorf("its %s does not run: %w %s", program, err, out)
		}
		found := versionLine.FindSubmatch(out)
		if found == nil {
			return fmt.Errorf("its %s tells no version: %s", program, strings.TrimSpace(string(out)))
		}
		if major != "" && string(found[1]) != major {
			return fmt.Errorf("its %s is version %s and the cluster is of version %s", program, found[1], major)
		}
	}
	return nil
}

// fetchBinaries gets a build of embedded-postgres into the cache, once. The
// repository "" is its own, Maven Central.
func fetchBinaries(ctx context.Context, major, cache, repository string) (string, error) {
	if major == "" {
		major = fetchedMajor
	}
	version, ok := fetchable[major]
	if !ok {
		return "", fmt.Errorf("embedded-postgres has no version %s, only %v", major, slices.Sorted(maps.Keys(fetchable)))
	}
	final := filepath.Join(cache, "postgres-"+string(version))
	if usable(ctx, filepath.Join(final, "bin"), major) == nil {
		return filepath.Join(final, "bin"), nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil { //nolint:gosec // public binaries
		return "", fmt.Errorf("keep fetched Postgres binaries: %w", err)
	}
	work, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return "", fmt.Errorf("keep fetched Postgres binaries: %w", err)
	}
	defer os.RemoveAll(work)
	port, err := FreePort(ctx)
	if err != nil {
		return "", err
	}
	fetched := filepath.Join(work, "postgres")
	config := embeddedpostgres.DefaultConfig().Version(version).Port(uint32(port)). //nolint:gosec // a port fits
											CachePath(filepath.Join(work, "archive")).RuntimePath(filepath.Join(work, "run")).
											DataPath(filepath.Join(work, "data")).BinariesPath(fetched).Logger(io.Discard)
	if repository != "" {
		config = config.BinaryRepositoryURL(repository)
	}
	// The library takes no context and exports no fetch of its own: Start fetches,
	// unpacks, and then starts. As root that last step is refused by Postgres, which is
	// of no matter: what counts is whether the binaries run.
	started := make(chan error, 1)
	go func() {
		server := embeddedpostgres.NewDatabase(config)
		err := server.Start()
		if err == nil {
			err = server.Stop()
		}
		started <- err
	}()
	select {
	case err = <-started:
	case <-ctx.Done():
		return "", fmt.Errorf("fetching Postgres %s: %w", version, ctx.Err())
	}
	if unusable := usable(ctx, filepath.Join(fetched, "bin"), major); unusable != nil {
		return "", fmt.Errorf("fetching Postgres %s failed (%w)", version, errors.Join(err, unusable))
	}
	// Whoever comes second finds the first's directory, which is as good.
	if err := os.Rename(fetched, final); err != nil && usable(ctx, filepath.Join(final, "bin"), major) != nil {
		return "", fmt.Errorf("keep fetched Postgres binaries: %w", err)
	}
	return filepath.Join(final, "bin"), nil
}
