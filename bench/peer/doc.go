// Package peer runs what others offer for the same purpose on the same Postgres.
package peer
