// Package broker adapts kafka-go to the ports of outbox and inbox, and is the
// only importer of kafka-go. Of the service it imports outbox and inbox, for
// their types.
//
// It uses kafka-go's Client and ConsumerGroup, and neither its Writer nor its
// Reader. The Writer goes on to batch N+1 after batch N ran out of retries and
// leaves timed-out batches queued, which breaks a key's order. The Reader takes
// MaxWait for its own read deadline, so that a short wait reconnects whenever a
// broker is slow, blocks where no context reaches it, and waits in silence past
// a log's end when the log has been truncated. Client.Produce, Client.RawProduce and
// Client.Fetch end with their context and tell each error.
package broker
