package scenario

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Environment is where a round was measured.
type Environment struct {
	Command  string            `json:"command"`
	Commit   string            `json:"commit"`
	Machine  string            `json:"machine"`
	Go       string            `json:"go"`
	Postgres string            `json:"postgres"`
	Settings map[string]string `json:"postgres_settings"`
}

// settings of Postgres that speed and durability depend on.
var settings = []string{
	"fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size", "checkpoint_timeout",
	"checkpoint_completion_target", "wal_compression", "wal_buffers", "wal_level", "autovacuum", "max_connections",
}

func readEnvironment(ctx context.Context, url string) (e Environment, err error) {
	e = Environment{Command: strings.Join(os.Args, " "), Go: runtime.Version(), Commit: commit(ctx), Machine: machine(), Settings: map[string]string{}}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return e, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := conn.QueryRow(ctx, `SELECT current_setting('server_version')`).Scan(&e.Postgres); err != nil {
		return e, err
	}
	for _, name := range settings {
		var value string
		if err := conn.QueryRow(ctx, `SELECT current_setting($1)`, name).Scan(&value); err != nil {
			return e, err
		}
		e.Settings[name] = value
	}
	return e, nil
}

// commit of the tree, with a + when files are changed.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty=+").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func machine() string {
	model := "unknown processor"
	if content, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(content)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	memory := ""
	if content, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kib int64
		if _, err := fmt.Sscanf(string(content), "MemTotal: %d kB", &kib); err == nil {
			memory = fmt.Sprintf(", %d GiB", kib>>20)
		}
	}
	return fmt.Sprintf("%s, %d cores%s, %s/%s", model, runtime.NumCPU(), memory, runtime.GOOS, runtime.GOARCH)
}

func loadAverage() string {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(content))[:3], " ")
}

func (e Environment) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "machine   %s\npostgres  %s:", e.Machine, e.Postgres)
	for _, name := range settings {
		fmt.Fprintf(&b, " %s=%s", name, e.Settings[name])
	}
	fmt.Fprintf(&b, "\ncommit    %s, %s\ncommand   %s\n", e.Commit, e.Go, e.Command)
	return b.String()
}
