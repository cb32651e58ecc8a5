// Package postgres opens pools, runs transactions and migrations, and tells
// classes of errors apart. Nothing above it knows a SQLSTATE.
//
// It imports no other package of the service but migrations.
package postgres
