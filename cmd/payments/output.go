package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/urfave/cli/v3"
)

// shows is the flag of every subcommand that shows something.
func shows(flags ...cli.Flag) []cli.Flag {
	return append(flags, &cli.StringFlag{
		Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "`FORMAT`: table, for people, or json, for programs, with the API's member names",
		Validator: func(s string) error {
			if s != "table" && s != "json" {
				return fmt.Errorf("must be table or json")
			}
			return nil
		},
	})
}

// show prints the value as JSON, or what the table writes.
func (e environment) show(c *cli.Command, value any, table func(w io.Writer)) error {
	if asJSON(c) {
		return e.printJSON(value)
	}
	var b strings.Builder
	table(&b)
	_, err := io.WriteString(e.stdout, b.String())
	return err
}

func asJSON(c *cli.Command) bool { return c.String("output") == "json" }

func (e environment) printJSON(value any) error {
	document, err := json.Marshal(value, jsontext.WithIndent("  "), json.Deterministic(true))
	if err == nil {
		_, err = fmt.Fprintf(e.stdout, "%s\n", document)
	}
	return err
}

// listed is a whole list in the form of the API's pages.
type listed[T any] struct {
	Object     string  `json:"object"`
	Data       []T     `json:"data"`
	HasMore    bool    `json:"has_more"`
	NextCursor *string `json:"next_cursor"`
}

func listOf[T any](data []T) listed[T] {
	return listed[T]{Object: "list", Data: append([]T{}, data...)}
}

// table aligns columns: each row is one line, without what a terminal would obey.
type table struct{ *tabwriter.Writer }

func newTable(w io.Writer, head ...string) table {
	t := table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if len(head) > 0 {
		fmt.Fprintln(t, strings.Join(head, "\t"))
	}
	return t
}

func (t table) row(cells ...any) {
	for i, cell := range cells {
		if i > 0 {
			fmt.Fprint(t, "\t")
		}
		fmt.Fprint(t, brief(text(cell)))
	}
	fmt.Fprintln(t)
}

// text of a cell: times in UTC, and nothing for what is not there.
func text(cell any) string {
	switch v := cell.(type) {
	case nil:
		return ""
	case *string:
		if v == nil {
			return ""
		}
		return *v
	case *time.Time:
		if v == nil {
			return ""
		}
		return text(*v)
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	}
	return fmt.Sprint(cell)
}

func age(t time.Time) string { return time.Since(t).Round(time.Second).String() }

// brief is one line, without what a terminal would obey.
func brief(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, line)
}

// parseTime takes a time by RFC 3339, or a day in UTC. Empty is no time.
func parseTime(c *cli.Command, flag string) (time.Time, error) {
	value := c.String(flag)
	if value == "" && !c.IsSet(flag) {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, value); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("-%s must be a time such as 2026-11-30T12:00:00Z, or a day such as 2026-11-30", flag)
}

// parseRange takes -from and -to, where either may be missing.
func parseRange(c *cli.Command) (from, to time.Time, err error) {
	if from, err = parseTime(c, "from"); err != nil {
		return from, to, err
	}
	if to, err = parseTime(c, "to"); err != nil {
		return from, to, err
	}
	if !from.IsZero() && !to.IsZero() && !from.Before(to) {
		return from, to, usagef("-to must be after -from")
	}
	return from, to, nil
}

func number[T ~int | ~int32 | ~int64](n T) string { return strconv.FormatInt(int64(n), 10) }
