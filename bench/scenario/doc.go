// Package scenario runs the benchmark's scenarios round by round, keeps the result of each round in a
// file, and prints medians and spreads. A run that was stopped goes on where it stopped.
package scenario
