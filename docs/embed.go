// Package docs is the part of the documentation that the service serves to integrators under
// /docs/guides. It imports the standard library only.
package docs

import "embed"

// Guides are the pages, by their names here.
//
//go:embed integrate.md webhooks.md live-updates.md queries.md errors.md
var Guides embed.FS
