package simulator

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"go.etcd.io/bbolt"
)

// notice is a notification that is still to be delivered. It is written in the
// transaction of its operation, so that no crash can lose it.
type notice struct {
	Failed int       `json:"failed,omitzero"` // deliveries so far
	Due    time.Time `json:"due,omitzero"`    // zero: at once
	Drawn  bool      `json:"drawn,omitzero"`  // whether a fault strikes it is decided, once
	Strike string    `json:"strike,omitzero"`

	sequence  uint64
	operation operation
}

// event is the body of a notification.
type event struct {
	ID      string    `json:"id"`
	Type    string    `json:"type"`    // operation.succeeded, operation.declined
	Created string    `json:"created"` // of the operation
	Data    operation `json:"data"`
}

// newEvent has the same bytes on every delivery of one operation.
func newEvent(o operation) event {
	return event{"evt_" + strings.TrimPrefix(o.ID, "op_"), "operation." + o.Status, o.Created, o}
}

func putNotice(tx *bbolt.Tx, sequence []byte, n notice) error {
	value, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode a notice: %w", err)
	}
	return tx.Bucket(noticeBucket).Put(sequence, value)
}

// notices reads the oldest up to limit that are due, and when the next of those
// that are not will be; zero if there is none.
func (l *ledger) notices(now time.Time, limit int) (due []notice, next time.Time, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(noticeBucket).Cursor()
		for sequence, value := c.First(); sequence != nil && len(due) < limit; sequence, value = c.Next() {
			n := notice{sequence: binary.BigEndian.Uint64(sequence)}
			if err := json.Unmarshal(value, &n); err != nil {
				return fmt.Errorf("notice %x is damaged: %w", sequence, err)
			}
			if n.Due.After(now) {
				if next.IsZero() || n.Due.Before(next) {
					next = n.Due
				}
				continue
			}
			e, err := readEntry(tx, sequence)
			if err != nil {
				return err
			}
			n.operation = e.Operation
			due = append(due, n)
		}
		return nil
	})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read the notices: %w", err)
	}
	return due, next, nil
}

// settle writes what became of notices. Those in done are removed; with one of
// them delivered, the reordered ones before it are due. It shares its fsync with the
// operations that come meanwhile, which would else wait for one a notice.
func (l *ledger) settle(changed, done []notice, delivered uint64) error {
	err := l.db.Batch(func(tx *bbolt.Tx) error {
		for _, n := range done {
			if err := tx.Bucket(noticeBucket).Delete(sequenceKey(n.sequence)); err != nil {
				return err
			}
		}
		overtaken, err := reordered(tx, delivered)
		if err != nil {
			return err
		}
		for _, n := range slices.Concat(changed, overtaken) { // Batch may run this again
			if err := putNotice(tx, sequenceKey(n.sequence), n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write the notices: %w", err)
	}
	return nil
}

// reordered gives those before a sequence, made due.
func reordered(tx *bbolt.Tx, before uint64) (all []notice, err error) {
	c := tx.Bucket(noticeBucket).Cursor()
	for key, value := c.First(); key != nil; key, value = c.Next() {
		n := notice{sequence: binary.BigEndian.Uint64(key)}
		if n.sequence >= before {
			return all, nil
		}
		if err := json.Unmarshal(value, &n); err != nil {
			return nil, fmt.Errorf("notice %x is damaged: %w", key, err)
		}
		if n.Strike == reorder {
			n.Strike, n.Due = "", time.Time{}
			all = append(all, n)
		}
	}
	return all, nil
}

func sequenceKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
