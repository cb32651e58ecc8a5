package tools

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

const composeFile = "../docker-compose.yml"

// secrets are the variables of .env, each with a value that can be recognized where it arrives.
func secrets() types.Mapping {
	return types.Mapping{
		"POSTGRES_PASSWORD":          "canary-superuser",
		"PAYMENTS_OWNER_PASSWORD":    "canary-owner",
		"PAYMENTS_DB_PASSWORD":       "canary-app",
		"PAYMENTS_PEPPER_KEYSET":     "canary-pepper",
		"PAYMENTS_ENCRYPTION_KEYSET": "canary-encryption",
		"GRAFANA_ADMIN_PASSWORD":     "canary-grafana",
		"PAYMENTS_API_KEY":           "canary-merchant",
		"PAYMENTS_API_KEY_2":         "canary-second",
		"PAYMENTS_OPERATOR_KEY":      "canary-operator",
		"PAYMENTS_OPERATOR_KEY_2":    "canary-colleague",

		"PAYMENTS_SIMULATOR_WEBHOOK_SECRET": "canary-webhook",
	}
}

// keeper is the service that spreads them.
const keeper = "secrets"

// ours tells our own image, whoever builds it.
func ours(s types.ServiceConfig) bool { return strings.HasPrefix(s.Image, "payments:") }

// loadCompose is strict: schema, interpolation and consistency are all checked.
func loadCompose(t *testing.T, env types.Mapping, profiles ...string) (*types.Project, error) {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	details := types.ConfigDetails{
		WorkingDir:  dir,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(dir, filepath.Base(composeFile))}},
		Environment: env,
	}
	return loader.LoadWithContext(t.Context(), details, func(o *loader.Options) {
		o.ResolvePaths = true
		o.Profiles = profiles
	})
}

func compose(t *testing.T) *types.Project {
	t.Helper()
	p, err := loadCompose(t, secrets(), "*") // the services of every profile
	if err != nil {
		t.Fatalf("load %s: %v", composeFile, err)
	}
	return p
}

// `docker compose up` in a clean clone: no variable is set, and nothing has to be asked for.
func TestComposeNeedsNothingPrepared(t *testing.T) {
	p, err := loadCompose(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"grafana", "kafka", "migrate", "postgres", "prometheus", "readable", "ready", keeper, "seed", "service", "simulator"}
	got := p.ServiceNames()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the services are %v, want %v", got, want)
	}
}

func TestComposeImagesArePinned(t *testing.T) {
	// A digest is better than a tag, which can lead to other content tomorrow. None is written here
	// that nobody has pulled: a wrong one would keep the stack from starting.
	pinned := regexp.MustCompile(`^[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?[a-z0-9.-]*(@sha256:[0-9a-f]{64})?$`)
	for name, s := range compose(t).Services {
		if !ours(s) && !pinned.MatchString(s.Image) {
			t.Errorf("service %s: the image %q has no tag with a version", name, s.Image)
		}
		if ours(s) && s.Image != "payments:dev" {
			t.Errorf("service %s: our image is %q where VERSION is not set, want payments:dev", name, s.Image)
		}
	}
}

// Two builds that export one tag at once collide in containerd's image store. So one service
// builds our image, and no other may pull or build it.
func TestComposeBuildsEachImageOnce(t *testing.T) {
	p := compose(t)
	builders := map[string][]string{}
	for name, s := range p.Services {
		if s.Build != nil {
			builders[s.Image] = append(builders[s.Image], name)
		}
	}
	for image, services := range builders {
		if len(services) > 1 {
			t.Errorf("the image %s is built by %v", image, services)
		}
	}
	for name, s := range p.Services {
		if !ours(s) {
			continue
		}
		if len(builders[s.Image]) == 0 {
			t.Errorf("service %s: no service builds its image %s", name, s.Image)
		}
		// build: an `up` after a change of the code runs what it changed.
		if want := map[bool]string{true: types.PullPolicyBuild, false: types.PullPolicyNever}[s.Build != nil]; s.PullPolicy != want {
			t.Errorf("service %s: pull_policy is %q, want %q", name, s.PullPolicy, want)
		}
	}
}

func TestComposeDependenciesCanBeAwaited(t *testing.T) {
	p := compose(t)
	adopted := map[string]bool{}
	for name, s := range p.Services {
		for on, d := range s.DependsOn {
			target := p.Services[on]
			switch d.Condition {
			case types.ServiceConditionHealthy:
				if target.HealthCheck == nil || len(target.HealthCheck.Test) < 2 {
					t.Errorf("%s waits for %s to be healthy, which has no health check", name, on)
				}
			case types.ServiceConditionCompletedSuccessfully:
				adopted[on] = true
				if target.Restart != "no" {
					t.Errorf("%s waits for the end of %s, whose restart policy is %q", name, on, target.Restart)
				}
			default:
				t.Errorf("%s waits for %s by %q, which says nothing about readiness", name, on, d.Condition)
			}
		}
	}
	for name, s := range p.Services {
		// `up --wait` fails on a one-shot that ends well unless somebody depends on its end.
		if s.Restart == "no" && !adopted[name] && len(s.Profiles) == 0 {
			t.Errorf("nothing waits for the end of the one-shot %s, so that `up --wait` would take its exit for a failure", name)
		}
		if s.Restart != "no" && s.HealthCheck == nil {
			t.Errorf("the long-running %s has no health check", name)
		}
		if s.Restart == "" {
			t.Errorf("%s has no restart policy", name)
		}
	}
}

// Every secret of .env reaches the service that spreads them, and no other: the rest gets files.
func TestComposeSpreadsNoSecretByEnvironment(t *testing.T) {
	for service, s := range compose(t).Services {
		for name, canary := range secrets() {
			holds := 0
			for variable, value := range s.Environment {
				if value == nil || !strings.Contains(*value, canary) {
					continue
				}
				holds++
				if variable != name {
					t.Errorf("service %s has %s as %s", service, name, variable)
				}
			}
			if want := map[bool]int{true: 1, false: 0}[service == keeper]; holds != want {
				t.Errorf("service %s has %s in %d variables, want %d", service, name, holds, want)
			}
		}
	}
}

// Nothing that a name or a URL shows to be secret is written in the file.
func TestComposeHoldsNoSecret(t *testing.T) {
	secretName := regexp.MustCompile(`(?i)(PASSWORD|PASSWD|SECRET|TOKEN|KEYSET|PEPPER|API_KEY|OPERATOR_KEY)`)
	p, err := loadCompose(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	for service, s := range p.Services {
		for name, value := range s.Environment {
			if value == nil || *value == "" || name == "PAYMENTS_SECRETS_DIR" {
				continue
			}
			if u, err := url.Parse(*value); err == nil && u.User != nil {
				if _, has := u.User.Password(); has {
					t.Errorf("service %s: %s has a password", service, name)
				}
			} else if secretName.MatchString(name) && !strings.HasSuffix(name, "_FILE") {
				t.Errorf("service %s: the value of %s is written in the file", service, name)
			}
		}
	}
}

// Each process gets the credentials that it works with and no others, in a volume that no
// other service has.
func TestComposeSpreadsNoSecret(t *testing.T) {
	want := map[string]string{
		"postgres":  "POSTGRES_PASSWORD,PAYMENTS_OWNER_PASSWORD,PAYMENTS_DB_PASSWORD",
		"migrate":   "PAYMENTS_DATABASE_URL,PAYMENTS_MIGRATE_DATABASE_URL",
		"seed":      "PAYMENTS_DATABASE_URL,PAYMENTS_PEPPER_KEYSET,PAYMENTS_API_KEY,PAYMENTS_API_KEY_2,PAYMENTS_OPERATOR_KEY,PAYMENTS_OPERATOR_KEY_2",
		"service":   "PAYMENTS_DATABASE_URL,PAYMENTS_PEPPER_KEYSET,PAYMENTS_ENCRYPTION_KEYSET,PAYMENTS_SIMULATOR_WEBHOOK_SECRET",
		"simulator": "PAYMENTS_SIMULATOR_WEBHOOK_SECRET",
		"grafana":   "GRAFANA_ADMIN_PASSWORD",
		"cli":       "PAYMENTS_DATABASE_URL,PAYMENTS_MIGRATE_DATABASE_URL,PAYMENTS_PEPPER_KEYSET,PAYMENTS_ENCRYPTION_KEYSET,PAYMENTS_OPERATOR_KEY",
	}
	p := compose(t)
	volumes := map[string]string{} // by the keeper's directory
	for _, v := range p.Services[keeper].Volumes {
		volumes[v.Target] = v.Source
		if !strings.HasPrefix(v.Target, "/secrets/") && !v.ReadOnly {
			t.Errorf("%s can write to %s", keeper, v.Source)
		}
	}
	mounted := map[string][]string{}
	for name, s := range p.Services {
		for _, v := range s.Volumes {
			// A process of one role of the service has what the service has.
			if strings.HasPrefix(v.Source, "secrets") && !slices.Contains(roles(p), name) {
				mounted[v.Source] = append(mounted[v.Source], name)
			}
		}
	}
	if got := mounted[volumes["/secrets/all"]]; !slices.Equal(got, []string{keeper}) {
		t.Errorf("the volume with all secrets is mounted by %v", got)
	}
	got := map[string]string{}
	for _, argument := range p.Services[keeper].Command {
		dir, names, ok := strings.Cut(strings.TrimPrefix(argument, "-give="), ":")
		if !ok {
			continue
		}
		holder := strings.TrimPrefix(dir, "/secrets/")
		got[holder] = names
		services := mounted[volumes[dir]]
		slices.Sort(services)
		if both := []string{holder, keeper}; !slices.Equal(services, both) && !slices.Equal(services, []string{keeper, holder}) {
			t.Errorf("the volume for %s is mounted by %v, want %v", dir, services, both)
		}
		// What it reads is what it gets.
		var read []string
		for name, value := range p.Services[holder].Environment {
			if strings.HasSuffix(name, "_FILE") {
				read = append(read, strings.TrimPrefix(*value, "/run/secrets/"))
			}
		}
		given := strings.Split(names, ",")
		slices.Sort(read)
		slices.Sort(given)
		if !slices.Equal(read, given) {
			t.Errorf("service %s reads %v and is given %v", holder, read, given)
		}
		if !slices.ContainsFunc(p.Services[holder].Volumes, func(v types.ServiceVolumeConfig) bool {
			return v.Source == volumes[dir] && v.Target == "/run/secrets" && v.ReadOnly
		}) {
			t.Errorf("service %s has not %s as /run/secrets, read-only", holder, volumes[dir])
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("the secrets are given as %v, want %v", got, want)
	}
}

// The keeper is not root, so its volumes have to be its own: a new volume takes the owner of the
// image's directory.
func TestComposeKeepersVolumesAreInTheImage(t *testing.T) {
	dockerfile := read(t, "../Dockerfile")
	for name, s := range compose(t).Services {
		for _, v := range s.Volumes {
			if ours(s) && !v.ReadOnly && !strings.Contains(dockerfile, " /out"+v.Target+" ") {
				t.Errorf("service %s writes to %s, which the image has not", name, v.Target)
			}
		}
	}
}

func TestComposeVolumes(t *testing.T) {
	p := compose(t)
	used := map[string]bool{}
	for name, s := range p.Services {
		for _, v := range s.Volumes {
			switch v.Type {
			case types.VolumeTypeBind:
				if _, err := os.Stat(v.Source); err != nil {
					t.Errorf("service %s mounts a file that is not in the repository: %v", name, err)
				}
				if !v.ReadOnly {
					t.Errorf("service %s can write to %s of the repository", name, v.Source)
				}
			case types.VolumeTypeVolume:
				used[v.Source] = true
				if _, ok := p.Volumes[v.Source]; !ok {
					t.Errorf("service %s mounts the volume %s, which is not declared", name, v.Source)
				}
			default:
				t.Errorf("service %s has a mount of type %s", name, v.Type)
			}
		}
	}
	for name := range p.Volumes {
		if !used[name] {
			t.Errorf("the volume %s is declared and not used", name)
		}
	}
}

func TestComposeIsHardened(t *testing.T) {
	for name, s := range compose(t).Services {
		if !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("service %s may gain privileges", name)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("service %s publishes port %d on %q, want 127.0.0.1", name, port.Target, port.HostIP)
			}
		}
		if s.Privileged || s.NetworkMode == "host" {
			t.Errorf("service %s has the host's powers", name)
		}
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 {
			t.Errorf("service %s: cap_drop is %v and cap_add %v, want ALL and none", name, s.CapDrop, s.CapAdd)
		}
		if ours(s) && !s.ReadOnly {
			t.Errorf("service %s can write to its image", name)
		}
	}
}

// What our services say of each other names services, ports and paths that exist.
func TestComposeAddresses(t *testing.T) {
	p := compose(t)
	env := func(service, name string) string {
		t.Helper()
		v := p.Services[service].Environment[name]
		if v == nil {
			t.Fatalf("service %s has no %s", service, name)
		}
		return *v
	}
	simulator := strings.TrimPrefix(env("simulator", "PAYMENTS_SIMULATOR_ADDR"), "0.0.0.0")
	if got, want := env("service", "PAYMENTS_PROVIDER_URL"), "http://simulator"+simulator; got != want {
		t.Errorf("PAYMENTS_PROVIDER_URL is %s, want %s", got, want)
	}
	if got, want := env("simulator", "PAYMENTS_SIMULATOR_WEBHOOK_URL"), "http://service"+
		strings.TrimPrefix(env("service", "PAYMENTS_ADDR"), "0.0.0.0")+"/v1/provider/webhooks/simulator"; got != want {
		t.Errorf("PAYMENTS_SIMULATOR_WEBHOOK_URL is %s, want %s", got, want)
	}
	advertised := env("kafka", "KAFKA_ADVERTISED_LISTENERS")
	if got := "PLAINTEXT://" + env("service", "PAYMENTS_KAFKA_BROKERS"); got != advertised {
		t.Errorf("PAYMENTS_KAFKA_BROKERS says %s and the broker advertises %s", got, advertised)
	}
	if got := env("kafka", "KAFKA_AUTO_CREATE_TOPICS_ENABLE"); got != "false" {
		t.Errorf("KAFKA_AUTO_CREATE_TOPICS_ENABLE is %s: a misspelled topic would be made", got)
	}
	for variable, role := range map[string]string{"PAYMENTS_DATABASE_URL": "payments_app", "PAYMENTS_MIGRATE_DATABASE_URL": "payments_owner"} {
		u, err := url.Parse(env(keeper, variable))
		if err != nil || u.User.Username() != role || u.Host != "postgres:5432" {
			t.Errorf("%s is not of %s at postgres:5432", variable, role)
		}
	}
	for variable, service := range map[string]string{"PAYMENTS_URL": "service", "PAYMENTS_SIMULATOR_URL": "simulator"} {
		if got, want := env("ready", variable), "http://127.0.0.1:"+p.Services[service].Ports[0].Published; got != want {
			t.Errorf("ready says that %s is %s, want %s", variable, got, want)
		}
	}
	ports := map[string][]uint32{"service": {8080, 8081}, "simulator": {8090}}
	for service, want := range ports {
		var got []uint32
		for _, port := range p.Services[service].Ports {
			got = append(got, port.Target)
		}
		if !slices.Equal(got, want) {
			t.Errorf("service %s publishes %v, want %v", service, got, want)
		}
	}
	data := filepath.Dir(env("simulator", "PAYMENTS_SIMULATOR_DATA"))
	if !slices.ContainsFunc(p.Services["simulator"].Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == data }) {
		t.Errorf("the simulator's ledger in %s is not in a volume", data)
	}
}

func TestInitFileMakesTheRoles(t *testing.T) {
	b, err := os.ReadFile("../deploy/postgres/10-roles.sql")
	if err != nil {
		t.Fatal(err)
	}
	sql := string(b)
	for _, role := range []string{"payments_owner", "payments_app"} {
		if !strings.Contains(sql, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD :'", role)) {
			t.Errorf("the role %s is not made, or its password is not a variable", role)
		}
	}
	postgres := compose(t).Services["postgres"]
	for _, m := range regexp.MustCompile(`\\getenv \w+ (\w+)`).FindAllStringSubmatch(sql, -1) {
		if _, ok := postgres.Environment[m[1]]; !ok {
			t.Errorf("the init file reads %s, which the postgres service has not", m[1])
		}
	}
}
