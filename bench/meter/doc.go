// Package meter reads what a run costs: CPU by process from /proc, and statements, commits, rows, WAL
// and disk from Postgres' own statistics. It also computes exact quantiles.
//
// It imports no package of the service.
package meter
