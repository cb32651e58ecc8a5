// Package inbox applies messages that a broker delivers at least once exactly
// once, in the order of their keys, whatever is redelivered, reset, rebalanced or
// replayed.
//
// One transaction holds a batch's effects, the ids that say "seen", the offset
// behind the batch, and the generation of the consumer group: a process that has
// lost its partition is refused, and one that starts goes on where the effects
// stand. An id is kept in the partition of the day it was made on, which it
// carries itself (UUIDv7), so that old days are dropped and not deleted; what is
// older than those belongs to the handler's own watermark, or to a person
// (Config.Sequenced).
//
// A message that cannot be applied is a dead letter and blocks its key: it and all later ones of its
// key wait, in order, while the other keys flow on. It is found by bisecting the
// batch; how often it was tried is counted, in a transaction of its own, before
// the handler sees it, so that one that kills its process is found too. DeadLetters
// is what operators do then.
//
// # In another service
//
// The package carries bytes and knows no payment. It imports postgres only (a
// transaction's helper and the classes of errors), and needs the tables and
// functions whose names begin with inbox_ (migrations 00002, 00005, 00016, 00031 and 00035, and the
// function server_identity of 00034), in the database that holds the effects. Then:
//
//	in, err := inbox.New(pool, "parcels", handle, inbox.Config{Log: log, Registerer: registry})
//
// with a Handler that makes a batch's effects through the transaction it is
// given, and nothing outside of it; what has to leave the database is a row
// first. A consumer of any broker that has partitions and offsets calls Claim
// when it is given a partition, begins at the offset that Claim says, or at the
// log's first if it says none, hands on batches with Apply, and acknowledges what was
// taken (internal/broker is one for Kafka; messages have their id in the header
// HeaderID). Maintain runs now and then, once a day at least, and Measure before
// each scrape. TestAnotherServiceOfAnotherDomain does all of this for a
// warehouse.
package inbox
