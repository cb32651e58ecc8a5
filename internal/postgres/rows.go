package postgres

import (
	"fmt"
	"reflect"
	"slices"
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
// parameter $first; an alias has to follow. The fields of T, a struct, and of structs that it embeds have the tag
// `sql:"name type"`: the column's name, and the type of the array's elements. Arrays do not
// change what bytea and text hold, as JSON would by its escapes.
func Unnest[T any](first int) string {
	key := unnestKey{reflect.TypeFor[T](), first}
	if made, ok := unnests.Load(key); ok {
		if sql, ok := made.(string); ok {
			return sql
		}
	}
	all := fields(key.rows)
	params, names := make([]string, len(all)), make([]string, len(all))
	for i, f := range all {
		name, element, _ := strings.Cut(f.Tag.Get("sql"), " ")
		params[i], names[i] = fmt.Sprintf("$%d::%s[]", first+i, element), name
	}
	made := "(SELECT * FROM unnest(" + strings.Join(params, ", ") + ") AS _ (" + strings.Join(names, ", ") + "))"
	unnests.Store(key, made)
	return made
}

// Located is Unnest with the place, ctid, of the row of the table that has the same keys, and is
// of the merchant $1. Rows that the transaction has locked stay where they are:
//
//	UPDATE t SET … FROM <Located> v WHERE t.ctid = v.ctid
//
// A subquery that is not flattened is looked up by the whole key of an index, whatever the
// statistics say. With those of a young table the planner takes one merchant's rows for few,
// and reads all of them where it may.
func Located[T any](first int, table string, keys ...string) string {
	var where strings.Builder
	for _, key := range keys {
		where.WriteString(" AND " + key + " = v." + key)
	}
	return "(SELECT v.*, t.ctid FROM " + Unnest[T](first) + " v, LATERAL (SELECT ctid FROM " + table + " WHERE merchant_id = $1" + where.String() + " OFFSET 0) t)"
}

// fields are those of a struct and of the structs embedded in it.
func fields(t reflect.Type) []reflect.StructField {
	return slices.DeleteFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return f.Anonymous })
}

// Columns gives the rows as one slice per field of T, in the order of Unnest's parameters,
// with the arguments that come before them.
func Columns[T any](rows []T, before ...any) []any {
	all := fields(reflect.TypeFor[T]())
	v := reflect.ValueOf(rows)
	args := make([]any, 0, len(before)+len(all))
	args = append(args, before...)
	for _, f := range all {
		column := reflect.MakeSlice(reflect.SliceOf(f.Type), len(rows), len(rows))
		for n := range rows {
			column.Index(n).Set(v.Index(n).FieldByIndex(f.Index))
		}
		args = append(args, column.Interface())
	}
	return args
}
