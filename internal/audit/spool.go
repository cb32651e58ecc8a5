package audit

import (
	"bufio"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// spool sorts records by their key on disk, with a bounded part of them in memory. Records
// of one key stay in the order in which they were added.
type spool struct {
	dir   string
	most  int // bytes in memory
	size  int
	n     uint64
	chunk []record
	runs  []*os.File
}

type record struct {
	key   string
	n     uint64
	value []byte
}

// spoolMemory is what a spool holds in memory.
const spoolMemory = 32 << 20

func newSpool(dir string) *spool { return &spool{dir: dir, most: spoolMemory} }

func (s *spool) add(key string, value []byte) error {
	s.chunk = append(s.chunk, record{key, s.n, value})
	s.n++
	if s.size += len(key) + len(value) + 64; s.size < s.most {
		return nil
	}
	return s.flush()
}

func byKey(a, b record) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.n, b.n)) }

func (s *spool) flush() error {
	slices.SortFunc(s.chunk, byKey)
	f, err := os.CreateTemp(s.dir, "payments-audit-*")
	if err != nil {
		return fmt.Errorf("make a temporary file: %w", err)
	}
	s.runs = append(s.runs, f)
	// The file ends with its last handle, however the process does.
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("unlink a temporary file: %w", err)
	}
	w := bufio.NewWriter(f)
	for _, r := range s.chunk {
		head := binary.AppendUvarint(nil, uint64(len(r.key)))
		head = binary.AppendUvarint(head, r.n)
		head = binary.AppendUvarint(head, uint64(len(r.value)))
		for _, part := range [][]byte{head, []byte(r.key), r.value} {
			if _, err := w.Write(part); err != nil {
				return fmt.Errorf("write a temporary file: %w", err)
			}
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write a temporary file: %w", err)
	}
	s.chunk, s.size = s.chunk[:0], 0
	return nil
}

func (s *spool) close() {
	for _, f := range s.runs {
		_ = f.Close() // its contents are not needed any more
	}
}

// sorted gives the records in the order of their keys. After it nothing may be added.
func (s *spool) sorted() (*merged, error) {
	m := &merged{}
	slices.SortFunc(s.chunk, byKey)
	chunk := s.chunk
	sources := []func() (record, error){func() (r record, err error) {
		if len(chunk) == 0 {
			return r, io.EOF
		}
		r, chunk = chunk[0], chunk[1:]
		return r, nil
	}}
	for _, f := range s.runs {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, fmt.Errorf("read a temporary file: %w", err)
		}
		b := bufio.NewReader(f)
		sources = append(sources, func() (record, error) { return readRecord(b) })
	}
	for _, next := range sources {
		if err := m.push(next); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func readRecord(b *bufio.Reader) (r record, err error) {
	keyLength, err := binary.ReadUvarint(b)
	if err != nil {
		return r, err // io.EOF at the end
	}
	var valueLength uint64
	if r.n, err = binary.ReadUvarint(b); err == nil {
		valueLength, err = binary.ReadUvarint(b)
	}
	if err == nil {
		both := make([]byte, keyLength+valueLength)
		if _, err = io.ReadFull(b, both); err == nil {
			r.key, r.value = string(both[:keyLength]), both[keyLength:]
		}
	}
	if err != nil {
		return r, fmt.Errorf("read a temporary file: %w", errors.Join(io.ErrUnexpectedEOF, err))
	}
	return r, nil
}

// merged is the sorted runs as one.
type merged struct{ heads heads }

type head struct {
	record
	next func() (record, error)
}

type heads []head

func (h heads) Len() int           { return len(h) }
func (h heads) Less(i, j int) bool { return byKey(h[i].record, h[j].record) < 0 }
func (h heads) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *heads) Push(x any)        { *h = append(*h, x.(head)) } //nolint:errcheck // container/heap gives back what it was given
func (h *heads) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

func (m *merged) push(next func() (record, error)) error {
	r, err := next()
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	if err != nil {
		return err
	}
	heap.Push(&m.heads, head{r, next})
	return nil
}

// peek is the least key that is left; false at the end.
func (m *merged) peek() (key string, ok bool) {
	if len(m.heads) == 0 {
		return "", false
	}
	return m.heads[0].key, true
}

// take gives the values of the least key.
func (m *merged) take() (key string, values [][]byte, err error) {
	key, _ = m.peek()
	for len(m.heads) > 0 && m.heads[0].key == key {
		h := heap.Pop(&m.heads).(head) //nolint:errcheck // container/heap gives back what it was given
		values = append(values, h.value)
		if err := m.push(h.next); err != nil {
			return "", nil, err
		}
	}
	return key, values, nil
}
