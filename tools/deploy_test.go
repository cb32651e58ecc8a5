package tools

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metricsql"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v3"
)

type prometheusConfig struct {
	Global struct {
		ScrapeInterval     time.Duration `yaml:"scrape_interval"`
		EvaluationInterval time.Duration `yaml:"evaluation_interval"`
	} `yaml:"global"`
	RuleFiles     []string `yaml:"rule_files"`
	Alerting      any      `yaml:"alerting"` // TestComposeProfiles looks at it
	ScrapeConfigs []struct {
		JobName       string `yaml:"job_name"`
		MetricsPath   string `yaml:"metrics_path"`
		StaticConfigs []struct {
			Targets []string `yaml:"targets"`
		} `yaml:"static_configs"`
		DNSConfigs []struct {
			Names           []string      `yaml:"names"`
			Type            string        `yaml:"type"`
			Port            int           `yaml:"port"`
			RefreshInterval time.Duration `yaml:"refresh_interval"`
		} `yaml:"dns_sd_configs"`
	} `yaml:"scrape_configs"`
}

type ruleFile struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			For         time.Duration     `yaml:"for"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

type dashboard struct {
	UID    string `json:"uid"`
	Panels []struct {
		ID          int    `json:"id"`
		Type        string `json:"type"`
		Title       string `json:"title"`
		FieldConfig struct {
			Defaults struct {
				NoValue string `json:"noValue"`
			} `json:"defaults"`
		} `json:"fieldConfig"`
		Datasource datasource `json:"datasource"`
		Targets    []struct {
			Datasource datasource `json:"datasource"`
			Expr       string     `json:"expr"`
		} `json:"targets"`
	} `json:"panels"`
}

type datasource struct {
	UID string `json:"uid" yaml:"uid"`
}

// readYAML refuses members that the type does not have.
func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func TestPrometheusConfig(t *testing.T) {
	var c prometheusConfig
	readYAML(t, "../deploy/prometheus/prometheus.yml", &c)
	p := compose(t)
	var found []string
	for _, s := range c.ScrapeConfigs {
		for _, static := range s.StaticConfigs {
			for _, target := range static.Targets {
				host, port, _ := strings.Cut(target, ":")
				admin := p.Services[host].Environment["PAYMENTS_ADMIN_ADDR"]
				if admin == nil || *admin != "0.0.0.0:"+port {
					t.Errorf("job %s scrapes %s, which is no service's admin address", s.JobName, target)
				}
			}
		}
		for _, dns := range s.DNSConfigs {
			found = append(found, dns.Names...)
			if dns.Type != "A" || dns.Port != 8081 {
				t.Errorf("job %s looks for %v by %s at %d", s.JobName, dns.Names, dns.Type, dns.Port)
			}
		}
	}
	if roles := roles(p); !slices.Equal(slices.Sorted(slices.Values(found)), roles) {
		t.Errorf("Prometheus finds %v by name, want %v", found, roles)
	}
	for _, path := range c.RuleFiles {
		if !mounts(t, "prometheus", path) {
			t.Errorf("the rule file %s is not mounted in the prometheus service", path)
		}
	}
	if len(c.ScrapeConfigs) == 0 || len(c.RuleFiles) == 0 {
		t.Error("nothing is scraped, or no rule is read")
	}
}

func TestAlertRules(t *testing.T) {
	var c prometheusConfig
	readYAML(t, "../deploy/prometheus/prometheus.yml", &c)
	var f ruleFile
	readYAML(t, "../deploy/prometheus/alerts.yml", &f)
	known := registeredMetrics(t)
	seen := map[string]bool{}
	runbooks := map[string]bool{"README.md": true}
	for _, g := range f.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || seen[r.Alert] {
				t.Errorf("group %s: the alert %q has no name or another's", g.Name, r.Alert)
			}
			seen[r.Alert] = true
			checkExpression(t, "alert "+r.Alert, r.Expr, known)
			if !slices.Contains([]string{"page", "ticket"}, r.Labels["severity"]) {
				t.Errorf("alert %s: the severity is %q, want page or ticket", r.Alert, r.Labels["severity"])
			}
			if r.For < c.Global.EvaluationInterval {
				t.Errorf("alert %s fires on a single look", r.Alert)
			}
			if r.Annotations["summary"] == "" {
				t.Errorf("alert %s has no summary", r.Alert)
			}
			for _, part := range []string{"Means: ", "Look: ", "Do: "} {
				if !strings.Contains(r.Annotations["description"], part) {
					t.Errorf("alert %s: its description has no %q", r.Alert, part)
				}
			}
			runbooks[r.Alert+".md"] = true
			checkRunbook(t, r.Alert, r.Annotations["runbook"])
			if want := "{{ $externalURL }}/user/" + r.Alert + ".md"; r.Annotations["runbook_url"] != want {
				t.Errorf("alert %s: its runbook_url is %q, want %s, where Prometheus serves the page", r.Alert, r.Annotations["runbook_url"], want)
			}
		}
	}
	if len(seen) == 0 {
		t.Error("there are no rules")
	}
	files, err := os.ReadDir("../docs/runbooks")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !runbooks[file.Name()] {
			t.Errorf("docs/runbooks/%s is of no alert", file.Name())
		}
	}
}

// checkRunbook holds an alert to its page, which says what its description says, at length.
func checkRunbook(t *testing.T, alert, path string) {
	t.Helper()
	if want := "docs/runbooks/" + alert + ".md"; path != want {
		t.Errorf("alert %s: its runbook is %q, want %s", alert, path, want)
		return
	}
	page, err := os.ReadFile("../" + path)
	if err != nil {
		t.Errorf("alert %s: %v", alert, err)
		return
	}
	for _, part := range []string{"# " + alert + "\n", "\n## Meaning\n", "\n## Look\n", "\n## Do\n"} {
		if !strings.Contains(string(page), part) {
			t.Errorf("%s has no line %q", path, strings.TrimSpace(part))
		}
	}
}

// What the alerts' runbook_url leads to: Prometheus serves the pages under /user at its external URL.
func TestPrometheusServesTheRunbooks(t *testing.T) {
	s := compose(t).Services["prometheus"]
	if url := "http://127.0.0.1:" + s.Ports[0].Published; !slices.Contains(s.Command, "--web.external-url="+url) {
		t.Errorf("the external URL of Prometheus is not %s", url)
	}
	pages, err := filepath.Abs("../docs/runbooks")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool {
		return v.Source == pages && slices.Contains(s.Command, "--web.user-assets="+v.Target)
	}) {
		t.Errorf("docs/runbooks is not served: %v %v", s.Command, s.Volumes)
	}
}

func TestDashboards(t *testing.T) {
	var sources struct {
		APIVersion  int              `yaml:"apiVersion"`
		Datasources []map[string]any `yaml:"datasources"`
	}
	readYAML(t, "../deploy/grafana/provisioning/datasources/prometheus.yml", &sources)
	var providers struct {
		APIVersion int `yaml:"apiVersion"`
		Providers  []struct {
			Name           string            `yaml:"name"`
			Type           string            `yaml:"type"`
			AllowUIUpdates bool              `yaml:"allowUiUpdates"`
			Options        map[string]string `yaml:"options"`
		} `yaml:"providers"`
	}
	readYAML(t, "../deploy/grafana/provisioning/dashboards/payments.yml", &providers)
	if len(sources.Datasources) != 1 || len(providers.Providers) != 1 {
		t.Fatalf("%d data sources and %d providers, want one of each", len(sources.Datasources), len(providers.Providers))
	}
	if got := sources.Datasources[0]["url"]; got != "http://prometheus:9090" {
		t.Errorf("the data source is at %v", got)
	}
	if path := providers.Providers[0].Options["path"]; !mounts(t, "grafana", path) {
		t.Errorf("the dashboards' path %s is not mounted in the grafana service", path)
	}

	files, err := filepath.Glob("../deploy/grafana/dashboards/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards (%v)", err)
	}
	known := registeredMetrics(t)
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard
		if err := json.Unmarshal(b, &d); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		ids := map[int]bool{}
		for _, p := range d.Panels {
			name := fmt.Sprintf("%s, panel %q", filepath.Base(path), p.Title)
			if ids[p.ID] {
				t.Errorf("%s has another's id %d", name, p.ID)
			}
			ids[p.ID] = true
			for _, target := range p.Targets {
				if target.Datasource.UID != sources.Datasources[0]["uid"] || p.Datasource != target.Datasource {
					t.Errorf("%s asks the data source %q, which is not provisioned", name, target.Datasource.UID)
				}
				checkExpression(t, name, target.Expr, known)
				// A counter that has not counted yet has no series: that is 0, and "No data" looks like a fault.
				if regexp.MustCompile(`\b(rate|increase)\(`).MatchString(target.Expr) && !strings.Contains(target.Expr, "histogram_quantile") &&
					!regexp.MustCompile(`or (on\(\) )?vector\(0\)$`).MatchString(target.Expr) {
					t.Errorf("%s shows \"No data\" in the place of 0: %s", name, target.Expr)
				}
			}
			// A gauge that was not measured is never 0.
			if p.Type == "stat" && p.FieldConfig.Defaults.NoValue == "" {
				t.Errorf("%s shows \"No data\" before it has a value", name)
			}
		}
	}
}

// mounts tells whether the compose service has something mounted at path.
func mounts(t *testing.T, service, path string) bool {
	t.Helper()
	for _, v := range compose(t).Services[service].Volumes {
		if v.Target == path {
			return true
		}
	}
	return false
}

// checkExpression parses a query; each metric that it names has to be known.
func checkExpression(t *testing.T, where, query string, known map[string]bool) {
	t.Helper()
	expr, err := metricsql.Parse(query)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	metricsql.VisitAll(expr, func(e metricsql.Expr) {
		m, ok := e.(*metricsql.MetricExpr)
		if !ok {
			return
		}
		for _, filters := range m.LabelFilterss {
			for _, f := range filters {
				if f.Label == "__name__" && !known[f.Value] {
					t.Errorf("%s: no code registers the metric %s", where, f.Value)
				}
			}
		}
	})
}

// registeredMetrics are the names in the service's source, histograms' series
// among them, and `up`, which Prometheus makes itself.
func registeredMetrics(t *testing.T) map[string]bool {
	t.Helper()
	name := regexp.MustCompile(`"(payments_[a-z0-9_]+)"`)
	known := map[string]bool{"up": true}
	for _, root := range []string{"../internal", "../cmd"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			for _, m := range name.FindAllSubmatch(b, -1) {
				known[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatalf("read the service's source: %v", err)
		}
	}
	for _, n := range slices.Collect(maps.Keys(known)) {
		if strings.HasSuffix(n, "_seconds") {
			for _, series := range []string{"_bucket", "_sum", "_count"} {
				known[n+series] = true
			}
		}
	}
	return known
}
