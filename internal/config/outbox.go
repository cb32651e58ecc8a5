package config

import "time"

// Outbox is how it is kept.
type Outbox struct {
	PartitionSize int           // messages in a partition
	Retention     time.Duration // of a full partition
}

func (r *reader) outbox() Outbox {
	return Outbox{
		PartitionSize: r.integer("PAYMENTS_OUTBOX_PARTITION_SIZE", 1_000_000, 1000, 1_000_000_000),
		Retention:     r.duration("PAYMENTS_OUTBOX_RETENTION", 7*24*time.Hour, time.Minute, 10*365*24*time.Hour),
	}
}
