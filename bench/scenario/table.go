package scenario

import (
	"fmt"
	"text/tabwriter"
)

// column of a table: a metric and how it is written.
type column struct {
	metric, title, format string
}

// costColumns are what one payment takes.
var costColumns = []column{
	{"cpu_service", "service ms", "%.2f"},
	{"cpu_postgres", "postgres ms", "%.2f"},
	{"cpu_simulator", "simulator ms", "%.2f"},
	{"cpu_broker", "broker ms", "%.2f"},
	{"cpu_load", "load ms", "%.2f"},
	{"cpu_sum", "CPU ms", "%.2f"},
	{"statements", "statements", "%.1f"},
	{"commits", "durable commits", "%.2f"},
	{"wal_syncs", "WAL syncs", "%.2f"},
	{"inserted", "rows in", "%.1f"},
	{"updated", "rows updated", "%.1f"},
	{"hot", "HOT", "%.1f"},
	{"deleted", "rows out", "%.1f"},
	{"wal_kb", "WAL KB", "%.1f"},
	{"disk_kb", "disk KB", "%.1f"},
	{"outbox_kb", "of it outbox", "%.1f"},
}

// print writes a table with one row a contender: each column's median, and the spread where there is one.
func (r *Runner) print(s scenario) error {
	fmt.Fprintf(r.Out, "\n%s: %s\n\n", s.name, s.title)
	if err := r.table(s, s.columns); err != nil {
		return err
	}
	hasCost := false
	for _, c := range s.contenders {
		rounds, err := r.results.rounds(s.name, c.name, r.Rounds)
		if err != nil {
			return err
		}
		_, _, _, ok := spread(rounds, "cpu_sum")
		hasCost = hasCost || ok
	}
	if !hasCost {
		return nil
	}
	fmt.Fprint(r.Out, "\ncost of one payment (of one workflow for a peer):\n\n")
	return r.table(s, costColumns)
}

func (r *Runner) table(s scenario, columns []column) error {
	w := tabwriter.NewWriter(r.Out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "contender")
	for _, c := range columns {
		fmt.Fprintf(w, "\t%s", c.title)
	}
	fmt.Fprintln(w)
	for _, c := range s.contenders {
		rounds, err := r.results.rounds(s.name, c.name, r.Rounds)
		if err != nil {
			return err
		}
		fmt.Fprint(w, c.name)
		for _, col := range columns {
			fmt.Fprint(w, "\t"+cell(rounds, col))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func cell(rounds []Values, c column) string {
	median, low, high, ok := spread(rounds, c.metric)
	if !ok {
		return "-"
	}
	text := fmt.Sprintf(c.format, median)
	if lowest, highest := fmt.Sprintf(c.format, low), fmt.Sprintf(c.format, high); lowest != highest {
		text += " (" + lowest + " to " + highest + ")"
	}
	return text
}
