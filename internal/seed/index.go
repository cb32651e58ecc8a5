package seed

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// takeIndexes drops the indexes and keys of empty tables, which nobody else can use
// up to the transaction's end, and gives the statements that make them again: one sort
// for each index costs a fraction of ten million insertions, and leaves it dense.
// Error: ErrNotEmpty.
func takeIndexes(ctx context.Context, tx pgx.Tx, first string, tables []*table) (again []string, err error) {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = "public." + t.name
	}
	if _, err := tx.Exec(ctx, "LOCK TABLE "+strings.Join(names, ", ")+" IN ACCESS EXCLUSIVE MODE"); err != nil {
		return nil, fmt.Errorf("lock the tables: %w", err)
	}
	var exists bool
	if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM public."+first+")").Scan(&exists); err != nil {
		return nil, fmt.Errorf("look for payments: %w", err)
	}
	if exists {
		return nil, ErrNotEmpty
	}
	// Foreign keys go first and come last: those of other tables as well, which rely on keys of these.
	rows, err := tx.Query(ctx, `
		SELECT 'ALTER TABLE ' || conrelid::regclass || ' DROP CONSTRAINT ' || quote_ident(conname),
			'ALTER TABLE ' || conrelid::regclass || ' ADD CONSTRAINT ' || quote_ident(conname) || ' ' || pg_get_constraintdef(oid), 3
		FROM pg_constraint WHERE contype = 'f' AND conparentid = 0 AND (conrelid = ANY ($1::text[]::regclass[]) OR confrelid = ANY ($1::text[]::regclass[]))
		UNION ALL
		SELECT 'ALTER TABLE ' || conrelid::regclass || ' DROP CONSTRAINT ' || quote_ident(conname),
			'ALTER TABLE ' || conrelid::regclass || ' ADD CONSTRAINT ' || quote_ident(conname) || ' ' || pg_get_constraintdef(oid), 1
		FROM pg_constraint WHERE contype IN ('p', 'u') AND conrelid = ANY ($1::text[]::regclass[])
		UNION ALL
		SELECT 'DROP INDEX ' || indexrelid::regclass, pg_get_indexdef(indexrelid), 2
		FROM pg_index WHERE indrelid = ANY ($1::text[]::regclass[]) AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u'))
		UNION ALL
		-- Its orders come from the constructor, and a key to look their lines up by is missing.
		SELECT 'ALTER TABLE ' || tgrelid::regclass || ' DISABLE TRIGGER ' || quote_ident(tgname),
			'ALTER TABLE ' || tgrelid::regclass || ' ENABLE TRIGGER ' || quote_ident(tgname), 4
		FROM pg_trigger WHERE tgname = 'orders_sum' AND tgrelid = ANY ($1::text[]::regclass[])
		ORDER BY 3`, names)
	if err != nil {
		return nil, fmt.Errorf("look at the indexes: %w", err)
	}
	var drops []string
	var drop, remake string
	var order int
	if _, err := pgx.ForEachRow(rows, []any{&drop, &remake, &order}, func() error {
		again = append(again, remake)
		drops = append([]string{drop}, drops...)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look at the indexes: %w", err)
	}
	return again, execute(ctx, tx, drops)
}

func execute(ctx context.Context, tx pgx.Tx, statements []string) error {
	for _, sql := range statements {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}
