// Package outbox keeps the promise that what was committed is published, at
// least once and in sequence, and that nothing else is. Append writes messages
// in the transaction of the change that they tell of; a Relay reads what became
// visible and hands it to a Publisher.
//
// The relay keeps no position but a snapshot: done, whose visible rows are all
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
//     lock, or an identity sequence with CACHE above 1, breaks this.
//   - Nothing is sent twice but after a fault: a crash between publishing and
//     the checkpoint, a lease that was lost, a publisher's error. The same rows
//     are then read again from the last checkpoint, so that the first delivery
//     of each is still in sequence.
//
// One relay of a name publishes at a time: it holds a lease by the database's
// clock, publishes only until shortly before the lease's end, and writes its
// checkpoint under its epoch, so that one that was overtaken is refused.
//
// Snapshots name transactions of one database cluster: rows that were dumped and
// restored into another must have been published before, or be appended anew.
//
// The package carries bytes and knows no payment and no broker. It imports no
// other package of the service (postgres in its tests), so that it can be lifted
// out and used elsewhere.
package outbox
