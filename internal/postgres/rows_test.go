package postgres_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

func TestRowsComeBackAsTheyWent(t *testing.T) {
	type row struct {
		Text  string         `sql:"t text"`
		Bytes []byte         `sql:"b bytea"`
		Count int64          `sql:"n bigint"`
		At    *time.Time     `sql:"at timestamptz"`
		Why   map[string]any `sql:"why jsonb"`
	}
	pool, err := postgres.Open(t.Context(), devtest.Database(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	at := time.Date(2026, 11, 30, 1, 2, 3, 4000, time.UTC)
	for _, rows := range [][]row{
		{},
		{
			{Text: `{"a", \b, NULL}`, Bytes: []byte("\x00\xff\\x"), Count: -1 << 63, At: &at, Why: map[string]any{"code": "é\n"}},
			{Text: "", Bytes: []byte{}, Count: 7},
		},
	} {
		got, err := pool.Query(t.Context(), `SELECT t, b, n, at, why FROM `+postgres.Unnest[row](2)+` v WHERE $1::bool ORDER BY n`,
			postgres.Columns(rows, true)...)
		if err != nil {
			t.Fatal(err)
		}
		back, err := pgx.CollectRows(got, pgx.RowToStructByPos[row])
		if err != nil {
			t.Fatal(err)
		}
		for i := range back {
			if back[i].At != nil {
				utc := back[i].At.UTC()
				back[i].At = &utc
			}
		}
		if diff := cmp.Diff(rows, append([]row{}, back...)); diff != "" {
			t.Error(diff)
		}
	}
}
