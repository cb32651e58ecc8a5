package tools

import (
	"fmt"
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

// secrets are the variables without which the stack must not start, each with a
// value that can be recognized where it arrives.
func secrets() types.Mapping {
	return types.Mapping{
		"POSTGRES_PASSWORD":          "canary-superuser",
		"PAYMENTS_OWNER_PASSWORD":    "canary-owner",
		"PAYMENTS_DB_PASSWORD":       "canary-app",
		"PAYMENTS_PEPPER_KEYSET":     "canary-pepper",
		"PAYMENTS_ENCRYPTION_KEYSET": "canary-encryption",
		"GRAFANA_ADMIN_PASSWORD":     "canary-grafana",

		"PAYMENTS_SIMULATOR_WEBHOOK_SECRET": "canary-webhook",
	}
}

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
	return loader.LoadWithContext(t.Context(), details, loader.WithProfiles(profiles), func(o *loader.Options) {
		o.ResolvePaths = true
	})
}

func compose(t *testing.T, profiles ...string) *types.Project {
	t.Helper()
	p, err := loadCompose(t, secrets(), profiles...)
	if err != nil {
		t.Fatalf("load %s with profiles %v: %v", composeFile, profiles, err)
	}
	return p
}

func TestComposeServices(t *testing.T) {
	core := []string{"grafana", "kafka", "migrate", "postgres", "prometheus", "service", "simulator"}
	demo := append([]string{"seed"}, core...)
	slices.Sort(demo)
	for _, tt := range []struct{ profiles, want []string }{
		{nil, core},
		{[]string{"demo"}, demo},
	} {
		got := compose(t, tt.profiles...).ServiceNames()
		slices.Sort(got)
		if !slices.Equal(got, tt.want) {
			t.Errorf("profiles %v have the services %v, want %v", tt.profiles, got, tt.want)
		}
	}
}

func TestComposeImagesArePinned(t *testing.T) {
	pinned := regexp.MustCompile(`^[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?[a-z0-9.-]*$`)
	for name, s := range compose(t, "demo").Services {
		if s.Build == nil && !pinned.MatchString(s.Image) {
			t.Errorf("service %s: the image %q has no tag with a version", name, s.Image)
		}
		if s.Build != nil && s.Image != "payments:dev" {
			t.Errorf("service %s: our image is %q where VERSION is not set, want payments:dev", name, s.Image)
		}
	}
}

func TestComposeDependenciesCanBeAwaited(t *testing.T) {
	p := compose(t, "demo")
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
		if s.Restart == "no" && !adopted[name] {
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

func TestComposeSecretsAreRequired(t *testing.T) {
	for name := range secrets() {
		for _, empty := range []bool{false, true} {
			env := secrets()
			delete(env, name)
			if empty {
				env[name] = ""
			}
			_, err := loadCompose(t, env)
			if err == nil {
				t.Errorf("without %s (empty: %v) the file loads", name, empty)
				continue
			}
			if sentence := name + " is the password of|" + name + " holds the keys of"; !regexp.MustCompile(sentence).MatchString(err.Error()) {
				t.Errorf("without %s the error does not say what it is for: %v", name, err)
			}
		}
	}
}

// Every value that a name or a URL shows to be secret came from the environment.
func TestComposeHoldsNoSecret(t *testing.T) {
	secretName := regexp.MustCompile(`(?i)(PASSWORD|PASSWD|SECRET|TOKEN|KEYSET|PEPPER|API_KEY|OPERATOR_KEY)`)
	given := map[string]bool{}
	for _, v := range secrets() {
		given[v] = true
	}
	arrived := map[string]bool{}
	for service, s := range compose(t, "demo").Services {
		for name, value := range s.Environment {
			if value == nil {
				continue
			}
			secret := *value
			if u, err := url.Parse(*value); err == nil && u.User != nil {
				secret, _ = u.User.Password()
			} else if !secretName.MatchString(name) {
				continue
			}
			arrived[secret] = true
			if !given[secret] && (len(s.Profiles) == 0 || secret != "") {
				t.Errorf("service %s: the value of %s is written in the file", service, name)
			}
		}
	}
	for name, v := range secrets() {
		if !arrived[v] {
			t.Errorf("%s is required and reaches no service", name)
		}
	}
}

// Each process gets the credentials that it works with and no others.
func TestComposeSpreadsNoSecret(t *testing.T) {
	holders := map[string][]string{
		"canary-superuser":  {"postgres"},
		"canary-owner":      {"migrate", "postgres"},
		"canary-app":        {"migrate", "postgres", "seed", "service"},
		"canary-pepper":     {"seed", "service"},
		"canary-encryption": {"seed", "service"},
		"canary-grafana":    {"grafana"},
		"canary-webhook":    {"service", "simulator"},
	}
	p := compose(t, "demo")
	for canary, want := range holders {
		var got []string
		for name, s := range p.Services {
			for _, v := range s.Environment {
				if v != nil && strings.Contains(*v, canary) {
					got = append(got, name)
				}
			}
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("%s is in the environment of %v, want %v", canary, got, want)
		}
	}
}

func TestComposeVolumes(t *testing.T) {
	p := compose(t, "demo")
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
	for name, s := range compose(t, "demo").Services {
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
		if s.Build == nil {
			continue
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) {
			t.Errorf("service %s: read_only is %v and cap_drop %v, want true and ALL", name, s.ReadOnly, s.CapDrop)
		}
	}
}

// What our services say of each other names services, ports and paths that exist.
func TestComposeAddresses(t *testing.T) {
	p := compose(t, "demo")
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
	for service, role := range map[string]string{"service": "payments_app", "seed": "payments_app"} {
		u, err := url.Parse(env(service, "PAYMENTS_DATABASE_URL"))
		if err != nil || u.User.Username() != role || u.Host != "postgres:5432" {
			t.Errorf("service %s: PAYMENTS_DATABASE_URL is not of %s at postgres:5432", service, role)
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
