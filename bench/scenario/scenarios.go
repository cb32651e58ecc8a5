package scenario

// scenarios in the order in which they run: what others need comes first.
func scenarios(quick bool) []scenario {
	return []scenario{
		{
			name: "complete", title: "payments a second from POST to read model with flat lag; DBOS: workflows of four steps that do nothing",
			columns: []column{
				{"per_s", "per s", "%.0f"},
				{"read_model_p50", "p50 ms", "%.0f"},
				{"read_model_p99", "p99 ms", "%.0f"},
				{"core_sum", "% of a core", "%.0f"},
				{"core_service", "service %", "%.0f"},
				{"core_postgres", "postgres %", "%.0f"},
				{"memory_mib", "memory MiB", "%.0f"},
				{"concurrency", "at once", "%.0f"},
			},
			contenders: []contender{
				{name: "ours", measure: completion(setup{}, nil)},
				{name: "dbos", measure: dbos(nil)},
			},
		},
		{
			name: "accept", title: "payments accepted a second, and completed meanwhile",
			columns: []column{
				{"per_s", "accepted/s", "%.0f"},
				{"completed_per_s", "completed/s", "%.0f"},
				{"shed", "shed", "%.0f"},
				{"answer_p50", "answer p50 ms", "%.0f"},
				{"answer_p99", "p99 ms", "%.0f"},
			},
			contenders: acceptances(quick),
		},
		{
			name: "latency", title: "latency by an open loop at a share of complete's rate",
			columns: []column{
				{"offered_per_s", "offered/s", "%.0f"},
				{"outcome_p50", "outcome p50 ms", "%.0f"},
				{"outcome_p99", "p99 ms", "%.0f"},
				{"read_model_p50", "read model p50 ms", "%.0f"},
				{"read_model_p99", "p99 ms", "%.0f"},
				{"answer_p50", "202 p50 ms", "%.0f"},
				{"answer_p99", "p99 ms", "%.0f"},
				{"shed", "shed", "%.0f"},
			},
			contenders: latencies(quick),
		},
		{
			name: "idle", title: "a service without work, and the outcome of one payment on it",
			columns: []column{
				{"core_service", "service % of a core", "%.1f"},
				{"core_postgres", "postgres %", "%.1f"},
				{"core_both", "both %", "%.1f"},
				{"core_sum", "everything %", "%.1f"},
				{"statements_per_s", "statements/s", "%.0f"},
				{"memory_mib", "memory MiB", "%.0f"},
				{"outcome_p50", "outcome p50 ms", "%.0f"},
				{"outcome_p99", "p99 ms", "%.0f"},
			},
			contenders: []contender{{name: "ours", once: quick, measure: idle}},
		},
	}
}

func acceptances(quick bool) []contender {
	if quick {
		return []contender{{name: "16 clients", once: true, measure: accept(16)}}
	}
	return []contender{
		{name: "1 client", measure: accept(1)}, {name: "16 clients", measure: accept(16)},
		{name: "64 clients", measure: accept(64)}, {name: "256 clients", measure: accept(256)},
	}
}

func latencies(quick bool) []contender {
	if quick {
		return []contender{{name: "at 50 %", once: true, measure: latency(0.5)}}
	}
	return []contender{
		{name: "at 10 %", measure: latency(0.1)}, {name: "at 50 %", measure: latency(0.5)}, {name: "at 80 %", measure: latency(0.8)},
	}
}
