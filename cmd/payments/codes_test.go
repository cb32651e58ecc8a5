package main

import (
	"bytes"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"payments/internal/access"
)

// coded is what a command says with the variables, and its exit code.
func (c *clinic) coded(vars map[string]string, args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	var out, problems bytes.Buffer
	err := run(c.t.Context(), args, func(name string) (string, bool) { v, ok := vars[name]; return v, ok }, &out, &problems)
	if err != nil {
		problems.WriteString(err.Error())
	}
	return out.String(), problems.String(), exitCode(err)
}

func TestExitCodesOfAStackThatIsPartlyAway(t *testing.T) {
	c := newClinic(t)
	c.env[operatorKey], _ = c.key(access.RoleOperator, "", "ada")
	const nobody = "127.0.0.1:1"
	reconcile := lastHour()
	saga, key, endpoint := "sag_01m8702cxwf0xvsswam8j18mgk", "key_01m8702cxwf0xvsswam8j18mgk", "whe_01m8702cxwf0xvsswam8j18mgk"
	postgres, kafka := "postgres://u:p@"+nobody+"/d", nobody
	for _, away := range []struct {
		set      map[string]string
		commands []string
	}{
		{map[string]string{"PAYMENTS_DATABASE_URL": postgres, "PAYMENTS_MIGRATE_DATABASE_URL": postgres}, []string{
			"audit", "migrate", "seed", "seed -payments 1", "sagas list", "sagas show " + saga, "sagas retry -reason x " + saga, "sagas propose -reason x -rejected y " + saga,
			"deadletters list", "deadletters list -groups", "deadletters show prk_1", "deadletters replay -all", "deadletters discard -reason x -all prk_1",
			"outbox status", "outbox reset", "outbox lost", "keys list", "keys acts", "keys revoke " + key, "keys create -role operator -holder ada",
			"webhooks redeliver " + endpoint, reconcile, "replay payment_view", "secrets reencrypt", "doctor",
		}},
		{map[string]string{"PAYMENTS_READ_DATABASE_URL": postgres}, []string{"audit", "migrate", "deadletters list", "replay payment_view", "secrets reencrypt", "doctor"}},
		{map[string]string{"PAYMENTS_KAFKA_BROKERS": kafka}, []string{"audit -kafka", "replay payment_view", "doctor"}},
		{map[string]string{"PAYMENTS_PROVIDER_URL": "http://" + nobody}, []string{"audit", reconcile, "doctor"}},
		{map[string]string{"PAYMENTS_URL": "http://" + nobody}, []string{
			"show A-1", "sagas list -api", "sagas show -api " + saga, "deadletters list -api", "deadletters list -groups -api", "deadletters show -api prk_1", "keys list -api", "keys acts -api", "doctor",
			"healthcheck http://" + nobody,
		}},
	} {
		vars := maps.Clone(c.env)
		maps.Copy(vars, away.set)
		for _, command := range away.commands {
			out, problems, code := c.coded(vars, strings.Fields(command)...)
			if code != exitUnreachable || problems == "" {
				t.Errorf("payments %s, without %v: exit code %d\n%s%s", command, away.set, code, out, problems)
			}
		}
	}
	// Refused, not found and wrong are others.
	for command, want := range map[string]int{
		"sagas show " + saga: exitFound, "sagas retry -reason x " + saga: exitFound, "keys revoke " + key: exitFound, "deadletters show prk_1": exitFound,
		"webhooks redeliver " + endpoint: exitFound, "outbox reset": exitFound, "audit": 0, reconcile: 0, "doctor": 0, "outbox status": 0, "migrate": 0,
		"show A-1": exitUsage, "sagas list -api": exitUsage, "secrets show": exitUsage, "secrets drop PAYMENTS_NONE": exitUsage, "reconcile -from now": exitUsage,
	} {
		if out, problems, code := c.coded(c.env, strings.Fields(command)...); code != want {
			t.Errorf("payments %s: exit code %d, want %d\n%s%s", command, code, want, out, problems)
		}
	}
	merchant, _ := c.key(access.RoleAuditor, "", "eve")
	vars := maps.Clone(c.env)
	vars[operatorKey] = merchant
	if _, problems, code := c.coded(vars, "sagas", "retry", "-reason", "x", saga); code != exitUsage {
		t.Errorf("an auditor acts: exit code %d: %s", code, problems)
	}
}

// lastHour is a comparison that asks the provider for little.
func lastHour() string {
	return "reconcile -from " + time.Now().UTC().Add(-time.Hour).Format(time.RFC3339)
}

// What shows something shows it as one JSON document with the API's members.
func TestEverythingIsShownAsJSON(t *testing.T) {
	c := newClinic(t)
	c.env[operatorKey], _ = c.key(access.RoleOperator, "", "ada")
	reconcile := lastHour()
	for command, members := range map[string]string{
		"audit":                    "object data has_more next_cursor",
		"doctor":                   "object data has_more next_cursor",
		reconcile:                  "object from to payments moving differences",
		"replay payment_view":      "object payments compared differences replaced seconds",
		"sagas list":               "object data has_more next_cursor",
		"deadletters list":         "object data has_more next_cursor",
		"deadletters list -groups": "object data has_more next_cursor",
		"deadletters replay -all":  "object data has_more next_cursor",
		"outbox status":            "object system_identifier timeline shards",
		"outbox lost":              "object data has_more next_cursor",
		"outbox lost -settle":      "object settled",
		"keys list":                "object data has_more next_cursor",
		"keys acts":                "object data has_more next_cursor",
		"keys create -role operator -holder grace": "id object role holder secret secret_part api_version",
		"secrets":                            "PAYMENTS_API_KEY PAYMENTS_PEPPER_KEYSET",
		"secrets add PAYMENTS_PEPPER_KEYSET": "PAYMENTS_PEPPER_KEYSET",
		"secrets reencrypt -check":           "object data has_more next_cursor",
		"seed":                               "PAYMENTS_API_KEY PAYMENTS_API_KEY_2",
		"seed -payments 5 -merchants 1 -timelines 0": "object payments seconds",
	} {
		args := strings.Fields(command)
		if strings.HasPrefix(command, "seed -") {
			continue // alone, below: the audit is of an empty database
		}
		c.document(members, append(args, "-output", "json")...)
		if args[0] != "secrets" && args[0] != "seed" && args[0] != "keys" {
			out, problems, code := c.coded(c.env, append(args, "-o", "table")...)
			if code != 0 || strings.HasPrefix(out, "{") {
				t.Errorf("payments %s as a table: exit code %d\n%s%s", command, code, out, problems)
			}
		}
	}
	c.document("object payments seconds", "seed", "-payments", "5", "-merchants", "1", "-timelines", "0", "-output", "json")
}

func (c *clinic) document(members string, args ...string) map[string]any {
	c.t.Helper()
	out, problems, code := c.coded(c.env, args...)
	var document map[string]any
	if err := json.Unmarshal([]byte(out), &document); err != nil || code != 0 {
		c.t.Errorf("payments %q: exit code %d, %v\n%s%s", args, code, err, out, problems)
	}
	for member := range strings.FieldsSeq(members) {
		if _, ok := document[member]; !ok {
			c.t.Errorf("payments %q has no member %s:\n%s", args, member, out)
		}
	}
	return document
}
