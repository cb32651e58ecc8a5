package postgres_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/devstack/devtest"
)

var (
	sqlBlock  = regexp.MustCompile("(?s)```sql\n(.*?)```")
	sqlInline = regexp.MustCompile("`((?:SELECT|SET) [^`]*)`")
)

// What a runbook tells to run has to run as it stands there: in a session such as psql's, as the
// service's role, or as the owner where the line says so.
func TestTheRunbooksStatementsRun(t *testing.T) {
	pages, err := filepath.Glob("../../docs/runbooks/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	database := devtest.Database(t)
	connect := func(url string) *pgx.Conn {
		t.Helper()
		c, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(t.Context()) })
		return c
	}
	service, owner := connect(database.URL), connect(database.OwnerURL)
	ran := 0
	for _, page := range pages {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text := string(content)
		for _, pattern := range []*regexp.Regexp{sqlBlock, sqlInline} {
			for _, at := range pattern.FindAllStringSubmatchIndex(text, -1) {
				statement := strings.TrimSpace(text[at[2]:at[3]])
				line := text[strings.LastIndex(text[:at[0]], "\n")+1 : at[0]]
				as, role := service, "the service's role"
				if strings.Contains(line+statement, "as the owner") {
					as, role = owner, "the owner"
				}
				// A session's number is the reader's to fill in; this one is nobody's.
				runnable := strings.ReplaceAll(statement, "(pid)", "(0)")
				if _, err := as.Exec(t.Context(), runnable, pgx.QueryExecModeSimpleProtocol); err != nil {
					t.Errorf("%s: %s as %s: %v", filepath.Base(page), statement, role, err)
				}
				if strings.Contains(statement, "webhook_deliveries") && !strings.Contains(statement, "SET payments.merchant = '*';") {
					t.Errorf("%s: %s shows no row: row-level security hides those of all merchants", filepath.Base(page), statement)
				}
				ran++
			}
		}
	}
	if ran < 10 {
		t.Errorf("only %d statements were found", ran)
	}
}
