package postgres

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
)

// unnests keeps what Unnest made, by type and first parameter.
var unnests sync.Map //nolint:gochecknoglobals // a cache of what never changes

type unnestKey struct {
	rows  reflect.Type
	first int
}

// Unnest is a FROM item of the rows that Columns makes arrays of, the first of which is
// parameter $first; an alias has to follow. The fields of T, a struct, have the tag
// `sql:"name type"`: the column's name, and the type of the array's elements. Arrays do not
// change what bytea and text hold, as JSON would by its escapes.
func Unnest[T any](first int) string {
	key := unnestKey{reflect.TypeFor[T](), first}
	if made, ok := unnests.Load(key); ok {
		if sql, ok := made.(string); ok {
			return sql
		}
	}
	params, names := make([]string, key.rows.NumField()), make([]string, key.rows.NumField())
	for i := range key.rows.NumField() {
		name, element, _ := strings.Cut(key.rows.Field(i).Tag.Get("sql"), " ")
		params[i], names[i] = fmt.Sprintf("$%d::%s[]", first+i, element), name
	}
	made := "(SELECT * FROM unnest(" + strings.Join(params, ", ") + ") AS _ (" + strings.Join(names, ", ") + "))"
	unnests.Store(key, made)
	return made
}

// Columns gives the rows as one slice per field of T, in the order of Unnest's parameters,
// with the arguments that come before them.
func Columns[T any](rows []T, before ...any) []any {
	t := reflect.TypeFor[T]()
	v := reflect.ValueOf(rows)
	args := make([]any, 0, len(before)+t.NumField())
	args = append(args, before...)
	for i := range t.NumField() {
		column := reflect.MakeSlice(reflect.SliceOf(t.Field(i).Type), len(rows), len(rows))
		for n := range rows {
			column.Index(n).Set(v.Index(n).Field(i))
		}
		args = append(args, column.Interface())
	}
	return args
}
