package config

// Held bounds the requests that a process holds open at once: of all callers, and of one merchant.
type Held struct {
	Waits, WaitsPerMerchant     int // requests that wait for an outcome or for the read model
	Streams, StreamsPerMerchant int // event streams
	Exports, ExportsPerMerchant int // lists that are sent as CSV
}

func (r *reader) held() Held {
	return Held{
		Waits: r.integer("PAYMENTS_WAITS", 1000, 1, 100_000), WaitsPerMerchant: r.integer("PAYMENTS_WAITS_PER_MERCHANT", 200, 1, 100_000),
		Streams: r.integer("PAYMENTS_STREAMS", 1000, 1, 100_000), StreamsPerMerchant: r.integer("PAYMENTS_STREAMS_PER_MERCHANT", 100, 1, 100_000),
		Exports: r.integer("PAYMENTS_EXPORTS", 8, 1, 100_000), ExportsPerMerchant: r.integer("PAYMENTS_EXPORTS_PER_MERCHANT", 2, 1, 100_000),
	}
}
