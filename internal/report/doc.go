// Package report answers questions about many payments from materialized views,
// which one process at a time refreshes on a schedule and no visitor ever does
// (docs/patterns/materialized-views.md). What an answer shows is as old as its
// AsOf says.
//
// It imports access, payment and postgres.
package report
