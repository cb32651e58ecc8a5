package outbox

// hash is murmur2 without its sign bit, as Kafka's Java client takes it of a key to
// choose the partition (org.apache.kafka.common.utils.Utils.murmur2 and toPositive). A key's shard is the remainder by
// the number of shards: with as many shards as partitions, or a divisor of that
// number, a shard has whole partitions to itself, so that a partition that refuses
// holds up one shard. Order needs no such agreement, only that a key stays in its shard.
func hash(key string) int32 {
	const m, seed = 0x5bd1e995, 0x9747b28c
	n := len(key)
	h := uint32(seed) ^ uint32(n) //nolint:gosec // as in Java, where a length has 31 bits
	for ; len(key) >= 4; key = key[4:] {
		k := uint32(key[0]) | uint32(key[1])<<8 | uint32(key[2])<<16 | uint32(key[3])<<24
		k *= m
		k ^= k >> 24
		h = h*m ^ k*m
	}
	switch len(key) {
	case 3:
		h ^= uint32(key[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(key[0])) * m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return int32(h & 0x7fffffff)
}
