// Package counts holds what a payment costs in statements, commits, rows, bytes of log and allocations
// against a committed baseline. Counts are stable where times are not, so that CI can hold them.
//
// Payments are made one after another, which is the upper bound: payments that come together share
// transactions. Each role works alone, so that its batches do not depend on how fast another role is.
package counts
