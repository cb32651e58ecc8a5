// Package outbox keeps the promise that what was committed is published, at
// least once and in sequence, and that nothing else is. Append writes messages
// in the transaction of the change that they tell of; Relays share the outbox's
// shards, read what became visible and hand it to a Publisher; a Keeper makes
// partitions ahead and drops what every shard has passed.
//
// A shard keeps no position but a snapshot: done, whose visible rows are all
// published. A window is what one later snapshot sees and done does not, and
// after it that later snapshot is done. Why this is right:
//
//   - Nothing is lost. position is drawn before the commit, so a cursor over it
//     passes rows that become visible behind it. A snapshot says exactly what
//     was visible; a transaction that was running then stands in its list and
//     is looked for by name (xid = ANY) until it ends.
//   - Nothing stalls. A long transaction is one more entry in that list; the
//     rows of all others go out meanwhile.
//   - A key stays in sequence. Its appender holds the lock of the aggregate's
//     row, so its next message is appended only after the last one's commit:
//     whatever snapshot sees the later sees the earlier too, and in one window
//     position, drawn under the lock, has them in order. Append without that
//     lock, or a sequence with CACHE above 1, breaks this.
//   - Nothing is sent twice but after a fault: a crash between publishing and
//     the checkpoint, a shard that was lost, a publisher's error. The same rows
//     are then read again from the last checkpoint, so that the first delivery
//     of each is still in sequence, even while two relays believe to own a shard.
//     What a former owner has sent may still arrive later than that, unless the
//     publisher is a Fencer.
//
// A key's shard is the remainder of its hash. Each shard is one relay's at a time, by
// the relay's lease and the shard's epoch, measured by the database's clock: the
// owner publishes only until shortly before the lease's end, and writes its
// checkpoint under its epoch, so that one that was overtaken is refused. Shards are shared fairly
// by however many relays live. A shard that cannot publish holds up no other.
// docs/decisions/outbox-reading.md compares this with what else was possible.
//
// Snapshots name transactions of one database server, so each checkpoint carries the
// server's system identifier and timeline. On another server the checkpoints prove nothing: the
// relay stops until Reset has made new ones. After a promotion or a recovery, which raise the
// timeline, the relay looks for published messages whose commits are lost, notes them, and goes on. For
// the same reason a relay holds one session, which a pooler must not share out.
//
// # Elsewhere
//
// The package carries bytes and knows no payment and no broker. Of the service it imports
// postgres alone, for the arrays that a batch of rows is written by. To use it in another service,
// take the folder, internal/postgres/rows.go, the outbox's part of migrations/00004_outbox.sql,
// 00022 and 00034 with the grants of internal/postgres.Migrate, and implement Publisher
// (internal/broker does for Kafka). Then:
//
//   - give each aggregate a row with a sequence; draw the next under its lock and
//     Append in the same transaction, on connections with synchronous_commit on;
//   - run a Relay's RunOnce in a loop of a few milliseconds wherever messages may be
//     sent from, at once again when it says so, and Release it at the end;
//   - run a Keeper's RunOnce every few seconds in every process that appends.
//
// example_test.go does it for a library's loans.
package outbox
