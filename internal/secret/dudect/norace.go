//go:build !race

package dudect

const raced = false
