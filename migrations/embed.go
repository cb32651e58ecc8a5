// Package migrations embeds the schema as goose migrations. The same set runs
// on the write database and on a separate read database.
package migrations

import "embed"

// FS holds every migration.
//
//go:embed *.sql
var FS embed.FS
