package tools

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v3"
)

func TestComposeLimitsEachContainer(t *testing.T) {
	for name, s := range compose(t).Services {
		if s.MemLimit <= 0 || s.PidsLimit <= 0 {
			t.Errorf("service %s: mem_limit is %d and pids_limit %d, want a limit", name, s.MemLimit, s.PidsLimit)
		}
		// An engine refuses more cores than the machine has.
		if s.CPUS <= 0 || s.CPUS > 1 {
			t.Errorf("service %s: cpus is %v, want a limit of one core at most", name, s.CPUS)
		}
		if limit := s.Environment["GOMEMLIMIT"]; limit != nil && !strings.HasSuffix(*limit, "MiB") {
			t.Errorf("service %s: GOMEMLIMIT is %s", name, *limit)
		}
		if s.Platform != "" {
			t.Errorf("service %s is for %s alone", name, s.Platform)
		}
	}
}

// What an image declares as a volume becomes a new anonymous one with each container, unless
// something is mounted there. The lists are those of the images' Dockerfiles.
func TestComposeLeavesNoAnonymousVolume(t *testing.T) {
	declared := map[string][]string{
		"postgres":          {"/var/lib/postgresql/data"},
		"apache/kafka":      {"/etc/kafka/secrets", "/var/lib/kafka/data", "/mnt/shared/config"},
		"prom/prometheus":   {"/prometheus"},
		"prom/alertmanager": {"/alertmanager"},
		"grafana/grafana":   nil,
		"haproxy":           nil,
		"payments":          nil,
	}
	for name, s := range compose(t).Services {
		image, _, _ := strings.Cut(s.Image, ":")
		volumes, ok := declared[image]
		if !ok {
			t.Errorf("service %s: what volumes does the image %s declare?", name, image)
		}
		for _, path := range volumes {
			mounted := slices.Contains([]string(s.Tmpfs), path) ||
				slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == path && v.Source != "" })
			if !mounted {
				t.Errorf("service %s mounts nothing at %s, which its image declares as a volume", name, path)
			}
		}
	}
}

// roles are the services that run one role of the service each, sorted.
func roles(p *types.Project) (names []string) {
	for name, s := range p.Services {
		if role := s.Environment["PAYMENTS_ROLES"]; role != nil && *role == name {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// The profile `scale` has two processes of each role that there is, each like the service in all but
// its role and its published ports.
func TestComposeScalesEachRole(t *testing.T) {
	p := compose(t)
	known := regexp.MustCompile("`PAYMENTS_ROLES` \\| all \\| of `([a-z,]+)`").FindStringSubmatch(read(t, "../docs/configuration.md"))
	if len(known) < 2 {
		t.Fatal("docs/configuration.md does not list the roles")
	}
	want := strings.Split(known[1], ",")
	slices.Sort(want)
	if got := roles(p); !slices.Equal(got, want) {
		t.Errorf("the profile has the roles %v, want %v", got, want)
	}
	service := p.Services["service"]
	for _, name := range roles(p) {
		s := p.Services[name]
		if s.Deploy == nil || s.Deploy.Replicas == nil || *s.Deploy.Replicas != 2 {
			t.Errorf("there are not two of %s", name)
		}
		if len(s.Ports) > 0 {
			t.Errorf("%s publishes a port, which two containers cannot have", name)
		}
		for variable, value := range service.Environment {
			switch variable {
			case "PAYMENTS_ROLES", "PAYMENTS_ADMIN_HOSTS", "GOMEMLIMIT":
				continue
			}
			if got := s.Environment[variable]; got == nil || *got != *value {
				t.Errorf("%s has not the service's %s", name, variable)
			}
		}
	}
	if !strings.Contains(read(t, "../deploy/haproxy/haproxy.cfg"), "server-template api 4 api:8080 ") {
		t.Error("the gateway does not look for the processes of the role api")
	}
}

// A process that is root would need capabilities to become another user.
func TestComposeRunsPostgresAsItsUser(t *testing.T) {
	for name, s := range compose(t).Services {
		if image, _, _ := strings.Cut(s.Image, ":"); image == "postgres" && (s.User == "" || strings.HasPrefix(s.User, "0")) {
			t.Errorf("service %s runs as root", name)
		}
	}
}

func TestComposeAndCIHaveOneKafka(t *testing.T) {
	version := regexp.MustCompile(`<kafka\.version>([^<]+)</kafka\.version>`).FindStringSubmatch(read(t, "../scripts/kafka/pom.xml"))
	kafka := compose(t).Services["kafka"]
	if len(version) < 2 || kafka.Image != "apache/kafka:"+version[1] {
		t.Errorf("compose has %s and CI tests with %v", kafka.Image, version)
	}
	// Kafka's own tools start a JVM each time.
	for _, word := range kafka.HealthCheck.Test {
		if strings.Contains(word, ".sh") || strings.Contains(word, "java") {
			t.Errorf("the health check of kafka runs %s", word)
		}
	}
}

// Every file that is mounted from the clone was checked by `readable` before a container needs it.
func TestComposeChecksThatTheCloneCanBeRead(t *testing.T) {
	p := compose(t)
	var checked []string
	for _, v := range p.Services["readable"].Volumes {
		checked = append(checked, v.Source)
	}
	var waits func(name string) bool
	waits = func(name string) bool {
		on := p.Services[name].DependsOn
		_, ok := on["readable"]
		return ok || slices.ContainsFunc(slices.Collect(maps.Keys(on)), waits)
	}
	for name, s := range p.Services {
		for _, v := range s.Volumes {
			if name == "readable" || v.Type != types.VolumeTypeBind {
				continue
			}
			if !slices.ContainsFunc(checked, func(dir string) bool { return v.Source == dir || strings.HasPrefix(v.Source, dir+"/") }) {
				t.Errorf("service %s mounts %s, which `readable` does not check", name, v.Source)
			}
			if !waits(name) {
				t.Errorf("service %s mounts %s and does not wait for `readable`", name, v.Source)
			}
		}
	}
}

// The check itself, run as its container runs it, on a directory that is open and one that is not.
func TestReadableNamesWhatIsClosed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	script := strings.ReplaceAll(compose(t).Services["readable"].Command[0], "$$", "$")
	root := t.TempDir()
	for _, dir := range []string{root, filepath.Dir(root)} { // for the other user
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script = strings.ReplaceAll(script, "find /deploy ", "find "+root+" ")
	file := filepath.Join(root, "alerts.yml")
	for _, c := range []struct {
		mode os.FileMode
		code int
	}{{0o644, 0}, {0o600, 1}} {
		if err := os.WriteFile(file, nil, c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		run := exec.CommandContext(t.Context(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh", "-c", script)
		out, _ := run.CombinedOutput()
		if code := run.ProcessState.ExitCode(); code != c.code {
			t.Errorf("mode %o: exit code %d, want %d: %s", c.mode, code, c.code, out)
		}
		if c.code != 0 && (!strings.Contains(string(out), file) || !strings.Contains(string(out), "chmod -R a+rX")) {
			t.Errorf("it says %s", out)
		}
	}
}

// A merchant's receiver on the host can be reached.
func TestComposeReachesTheHost(t *testing.T) {
	hosts := compose(t).Services["service"].ExtraHosts
	if got := hosts["host.docker.internal"]; !slices.Equal(got, []string{"host-gateway"}) {
		t.Errorf("host.docker.internal of service is %v", got)
	}
}

// Profiles add to the stack, and `cli` runs each subcommand that is not one of the stack's own.
func TestComposeProfiles(t *testing.T) {
	got := map[string][]string{}
	for name, s := range compose(t).Services {
		for _, profile := range s.Profiles {
			got[profile] = append(got[profile], name)
		}
	}
	slices.Sort(got["scale"])
	want := map[string][]string{
		"cli": {"cli"}, "alerts": {"alertmanager"},
		"scale": {"api", "gateway", "projector", "relay", "reports", "saga", "webhooks"},
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("the profiles are %v, want %v", got, want)
	}
	var config struct {
		Alerting struct {
			Alertmanagers []struct {
				DNS []struct {
					Names []string `yaml:"names"`
					Port  int      `yaml:"port"`
				} `yaml:"dns_sd_configs"`
			} `yaml:"alertmanagers"`
		} `yaml:"alerting"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "../deploy/prometheus/prometheus.yml")), &config); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, m := range config.Alerting.Alertmanagers {
		for _, dns := range m.DNS {
			found = found || slices.Equal(dns.Names, []string{"alertmanager"}) && dns.Port == 9093
		}
	}
	if !found {
		t.Error("Prometheus does not look for the alertmanager")
	}
}

// The alertmanager's configuration routes both severities to receivers that exist.
func TestAlertmanagerConfig(t *testing.T) {
	var c struct {
		Route struct {
			Receiver string `yaml:"receiver"`
			Routes   []struct {
				Matchers []string `yaml:"matchers"`
				Receiver string   `yaml:"receiver"`
			} `yaml:"routes"`
		} `yaml:"route"`
		Receivers []struct {
			Name string `yaml:"name"`
		} `yaml:"receivers"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "../deploy/alertmanager/alertmanager.yml")), &c); err != nil {
		t.Fatal(err)
	}
	receivers := map[string]bool{}
	for _, r := range c.Receivers {
		receivers[r.Name] = true
	}
	pages := false
	for _, r := range c.Route.Routes {
		pages = pages || slices.Equal(r.Matchers, []string{`severity = "page"`}) && receivers[r.Receiver]
	}
	if !pages || !receivers[c.Route.Receiver] {
		t.Errorf("pages have a route: %v; the default receiver %q exists: %v", pages, c.Route.Receiver, receivers[c.Route.Receiver])
	}
}

// A first start that was cut off is begun again, and a database that was finished is left alone.
func TestPostgresBeginsAnUnfinishedFirstStartAgain(t *testing.T) {
	scripts, err := filepath.Abs("../deploy/postgres")
	if err != nil {
		t.Fatal(err)
	}
	data, bin := t.TempDir(), t.TempDir()
	// In the place of the image's entry point: what the image does with the init files.
	entrypoint := "#!/bin/bash\nset -e\necho started \"$@\"\n[[ -e $PGDATA/PG_VERSION ]] && exit\ntouch \"$PGDATA/PG_VERSION\"\n" +
		". " + scripts + "/00-begin.sh\n[[ -n $FAIL ]] && exit 3\n. " + scripts + "/99-end.sh\n"
	if err := os.WriteFile(filepath.Join(bin, "docker-entrypoint.sh"), []byte(entrypoint), 0o755); err != nil {
		t.Fatal(err)
	}
	start := func(fail string) string {
		t.Helper()
		run := exec.CommandContext(t.Context(), "/bin/sh", filepath.Join(scripts, "start.sh"), "postgres", "-c", "x=1")
		run.Env = append(os.Environ(), "PGDATA="+data, "FAIL="+fail, "PATH="+bin+":"+os.Getenv("PATH"))
		out, _ := run.CombinedOutput()
		if !strings.Contains(string(out), "started postgres -c x=1\n") {
			t.Fatalf("Postgres is not started: %s", out)
		}
		return string(out)
	}
	files := func() (names []string) {
		t.Helper()
		entries, err := os.ReadDir(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	start("yes")
	if got := files(); !slices.Equal(got, []string{"PG_VERSION", "payments.initializing"}) {
		t.Fatalf("after a first start that failed there is %v", got)
	}
	if out := start(""); !strings.Contains(out, "The first start of this database did not finish") {
		t.Errorf("the second start says %s", out)
	}
	if err := os.WriteFile(filepath.Join(data, "payments"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	start("")
	if got := files(); !slices.Equal(got, []string{"PG_VERSION", "payments"}) {
		t.Errorf("after a start of a finished database there is %v", got)
	}
}

// The documented line runs any subcommand: the image's entry point is the program, and `cli` changes
// its first argument alone.
func TestCLIRunsAnySubcommand(t *testing.T) {
	cli := compose(t).Services["cli"]
	if len(cli.Entrypoint) > 0 || !slices.Equal(cli.Command, []string{"version"}) {
		t.Errorf("cli runs %v %v", cli.Entrypoint, cli.Command)
	}
	if line := "\ndocker compose run --rm cli audit\n"; !strings.Contains(read(t, "../docs/operations/compose.md"), line) {
		t.Errorf("docs/operations/compose.md has no line %q", strings.TrimSpace(line))
	}
}
