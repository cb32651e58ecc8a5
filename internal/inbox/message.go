package inbox

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"payments/internal/text"
)

// HeaderID is the header that carries a message's id: that of a CloudEvent in
// Kafka's binary mode. Two messages with one id are one event.
const HeaderID = "ce_id"

// HeaderSequence is the header with a message's position among those of its key, of a
// CloudEvent as well. Dead letters that have it are applied in its order.
const HeaderSequence = "ce_sequence"

const maxID = 255

// Message is a record of a broker's log. Its position in the log is Topic,
// Partition and Offset; messages of one Key are in order. Time is the broker's
// or the producer's, and may be missing.
type Message struct {
	Topic     string
	Partition int
	Offset    int64
	Time      time.Time
	Key       []byte
	Value     []byte
	Headers   map[string]string
	// Left is what the handler leaves for Config.Finish.
	Left any
}

// id is false when there is none that the database could hold.
func (m Message) id() (string, bool) {
	id := m.Headers[HeaderID]
	return id, len(id) <= maxID && text.Name(id, maxID)
}

// onePartition refuses what no log delivers.
func onePartition(batch []Message) error {
	for i, m := range batch[1:] {
		if m.Topic != batch[0].Topic || m.Partition != batch[0].Partition || m.Offset <= batch[i].Offset {
			return fmt.Errorf("a batch is of one partition, in the order of its offsets: %s/%d %d came behind %s/%d %d",
				m.Topic, m.Partition, m.Offset, batch[0].Topic, batch[0].Partition, batch[i].Offset)
		}
	}
	return nil
}

// blockedID names a blocked key of a consumer, whatever bytes the key is made of.
func blockedID(consumer, topic string, key []byte) string {
	c, t, k := sha256.Sum256([]byte(consumer)), sha256.Sum256([]byte(topic)), sha256.Sum256(key)
	all := sha256.Sum256(append(append(c[:], t[:]...), k[:]...))
	return "prk_" + hex.EncodeToString(all[:16])
}

// undated is the day of an id that tells none.
var undated = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC) //nolint:gochecknoglobals // a constant, were times constants

const (
	crockford   = "0123456789abcdefghjkmnpqrstvwxyz"
	typeIDChars = 26
	uuidChars   = 36
)

// madeOn is the UTC day in which the id was made: of a UUIDv7 (RFC 9562), or a
// TypeID of one. A day is a function of the id alone, so that both deliveries of
// a message look in one partition.
func madeOn(id string) time.Time {
	ms, ok := uuidTime(id)
	if !ok {
		ms, ok = typeIDTime(id)
	}
	if !ok {
		return undated
	}
	return time.UnixMilli(ms).UTC().Truncate(24 * time.Hour)
}

// forgotten: the partition of the id's day was dropped.
func forgotten(id string, keptFrom time.Time) bool {
	day := madeOn(id)
	return !day.Equal(undated) && day.Before(keptFrom)
}

func uuidTime(id string) (ms int64, ok bool) {
	if len(id) != uuidChars || id[8] != '-' || id[13] != '-' || id[18] != '-' || id[23] != '-' || id[14] != '7' {
		return 0, false
	}
	b, err := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	if err != nil || len(b) != 16 {
		return 0, false
	}
	for _, c := range b[:6] {
		ms = ms<<8 | int64(c)
	}
	return ms, true
}

func typeIDTime(id string) (ms int64, ok bool) {
	suffix := id[strings.LastIndexByte(id, '_')+1:]
	// The 11th character begins with the four bits of the version.
	if len(suffix) != typeIDChars || suffix[0] > '7' || suffix[10] != 'e' && suffix[10] != 'f' {
		return 0, false
	}
	for i := range len(suffix) {
		digit := strings.IndexByte(crockford, suffix[i])
		if digit < 0 {
			return 0, false
		}
		if i < 10 { // 50 bits, of which the first two are zero
			ms = ms<<5 | int64(digit)
		}
	}
	return ms, true
}

// maxHeader is the length of a header's name or value that is kept of a dead letter, in
// characters: its other parts have none that is longer.
const maxHeader = 4000

// clean makes text that Postgres can hold of bytes that anyone may have sent.
func clean(s string) string { return text.Block(s, maxHeader) }

// orEmpty: a record without a key or a value (a tombstone) is nil, the columns are NOT NULL.
func orEmpty(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
