package simulator

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/go-json-experiment/json"
	"go.etcd.io/bbolt"
)

// filter narrows a list of operations; an empty member does not.
type filter struct{ reference, operationType, key string }

func (f filter) admits(o operation) bool {
	return (f.reference == "" || o.Reference == f.reference) &&
		(f.operationType == "" || o.Type == f.operationType) &&
		(f.key == "" || o.IdempotencyKey == f.key)
}

// pageScan bounds how many entries one read transaction looks at: an open one
// keeps the file from reusing pages, and a client may read slowly.
const pageScan = 1000

// lastSequence is where a list that begins now ends.
func (l *ledger) lastSequence() (last uint64, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		last = tx.Bucket(entryBucket).Sequence()
		return nil
	})
	return last, err
}

// page reads on after a sequence, oldest first, up to and including last. Next
// is where to read on; done that there is no more.
func (l *ledger) page(f filter, after, last uint64) (found []operation, next uint64, done bool, err error) {
	next, done = after, true
	err = l.db.View(func(tx *bbolt.Tx) error {
		scanned := 0
		visit := func(sequence []byte) (more bool, err error) {
			n := binary.BigEndian.Uint64(sequence)
			if n > last {
				return false, nil
			}
			if scanned == pageScan {
				done = false
				return false, nil
			}
			scanned++
			next = n
			e, err := readEntry(tx, sequence)
			if err == nil && f.admits(e.Operation) {
				found = append(found, e.Operation)
			}
			return true, err
		}
		start := binary.BigEndian.AppendUint64(nil, after+1)
		switch {
		case f.key != "":
			if sequence := tx.Bucket(keyBucket).Get([]byte(f.key)); sequence != nil && bytes.Compare(sequence, start) >= 0 {
				_, err := visit(sequence)
				return err
			}
			return nil
		case f.reference != "":
			return eachUnder(tx.Bucket(refBucket), f.reference, start, visit)
		}
		c := tx.Bucket(entryBucket).Cursor()
		for sequence, _ := c.Seek(start); sequence != nil; sequence, _ = c.Next() {
			if more, err := visit(sequence); err != nil || !more {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, 0, false, fmt.Errorf("read the ledger: %w", err)
	}
	return found, next, done, nil
}

// under is a key of an index by name. Names are visible characters, so that NUL
// keeps one name from being the beginning of another.
func under(name string, sequence []byte) []byte {
	return append(append([]byte(name), 0), sequence...)
}

func eachUnder(index *bbolt.Bucket, name string, start []byte, visit func(sequence []byte) (more bool, err error)) error {
	prefix := under(name, nil)
	c := index.Cursor()
	for k, _ := c.Seek(under(name, start)); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		if more, err := visit(k[len(prefix):]); err != nil || !more {
			return err
		}
	}
	return nil
}

func readEntry(tx *bbolt.Tx, sequence []byte) (e entry, err error) {
	if err := json.Unmarshal(tx.Bucket(entryBucket).Get(sequence), &e); err != nil {
		return entry{}, fmt.Errorf("entry %x is damaged: %w", sequence, err)
	}
	return e, nil
}

// entryByID is zero when there is none.
func entryByID(tx *bbolt.Tx, id string) (entry, error) {
	sequence := tx.Bucket(idBucket).Get([]byte(id))
	if sequence == nil {
		return entry{}, nil
	}
	return readEntry(tx, sequence)
}
