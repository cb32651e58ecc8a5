package scenario

import "payments/bench/stack"

// scenarios in the order in which they run: what others need comes first.
func scenarios(quick bool) []scenario {
	return []scenario{
		{
			name: "complete", title: "payments a second from POST to read model with flat lag; DBOS: workflows of four steps that do nothing",
			columns: completionColumns,
			contenders: []contender{
				{name: "ours", measure: completion(setup{}, nil)},
				{name: "dbos", measure: inProcess("dbos", dbosEmpty)},
			},
		},
		{
			name: "peers", title: "complete beside peers: textbook does the same with one statement a row; dbos-rows writes the textbook's rows; river runs four jobs that do nothing; ceiling is the rows alone, by sets in pgbench", slow: true,
			columns: completionColumns,
			contenders: []contender{
				{name: "ours", measure: completion(setup{}, nil)},
				{name: "textbook", measure: naive},
				{name: "dbos-rows", measure: inProcess("dbos-rows", dbosRows)},
				{name: "river", measure: inProcess("river", river)},
				{name: "ceiling", measure: ceiling},
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
		{
			name: "overload", title: "three times complete's rate, and a payment on half of it 5 s later", slow: true,
			columns: []column{
				{"offered_per_s", "offered/s", "%.0f"},
				{"accepted_per_s", "accepted/s", "%.0f"},
				{"per_s", "completed/s", "%.0f"},
				{"of_accepted", "% of accepted", "%.0f"},
				{"of_capacity", "% of complete", "%.0f"},
				{"shed", "shed", "%.0f"},
				{"answer_p50", "202 p50 ms", "%.0f"},
				{"answer_p99", "p99 ms", "%.0f"},
				{"outcome_p50", "later: outcome p50 ms", "%.0f"},
				{"outcome_p99", "p99 ms", "%.0f"},
				{"memory_mib", "memory MiB", "%.0f"},
			},
			contenders: []contender{{name: "ours", measure: overload}},
		},
		{
			name: "flood", title: "one merchant offers three times complete's rate: the payments of another merchant", slow: true,
			columns: []column{
				{"offered_per_s", "offered/s", "%.0f"},
				{"per_s", "completed/s", "%.0f"},
				{"shed", "shed", "%.0f"},
				{"other_shed", "of the other", "%.0f"},
				{"outcome_p50", "other: outcome p50 ms", "%.0f"},
				{"outcome_p99", "p99 ms", "%.0f"},
				{"read_model_p99", "read model p99 ms", "%.0f"},
			},
			contenders: []contender{{name: "ours", measure: flood}},
		},
		{
			name: "neighbors", title: "one merchant at its limits: the reads and payments of another merchant, quiet and beside it", slow: true,
			columns: []column{
				{"answered_per_s", "answered/s", "%.0f"},
				{"refused_per_s", "refused/s", "%.0f"},
				{"quiet_read_p50", "read p50 ms: quiet", "%.1f"},
				{"beside_read_p50", "beside", "%.1f"},
				{"quiet_read_p99", "p99: quiet", "%.1f"},
				{"beside_read_p99", "beside", "%.1f"},
				{"quiet_post_p50", "POST p50 ms: quiet", "%.1f"},
				{"beside_post_p50", "beside", "%.1f"},
				{"quiet_post_p99", "p99: quiet", "%.1f"},
				{"beside_post_p99", "beside", "%.1f"},
				{"beside_shed", "shed beside", "%.0f"},
			},
			contenders: neighbourContenders(),
		},
		{
			name: "merchants", title: "complete by 50 uneven merchants, and by one merchant over many articles instead of one", slow: true,
			columns: completionColumns,
			contenders: []contender{
				{name: "50 merchants", measure: completion(setup{merchants: 50}, uneven)},
				{name: "1 article", measure: completion(setup{}, nil)},
				{name: "1000 articles", measure: completion(setup{skus: stack.SKUs}, nil)},
			},
		},
		{
			name: "loaded", title: "complete on top of what years leave behind", slow: true,
			columns: completionColumns,
			contenders: []contender{
				{name: "empty", measure: completion(setup{}, nil)},
				{name: "1M payments", once: true, measure: seeded(1_000_000)},
				{name: "3M payments", once: true, measure: seeded(3_000_000)},
				{name: "100k sagas wait", once: true, measure: waiting},
				{name: "transaction held", once: true, measure: held},
			},
		},
		{
			name: "replay", title: "requests that repeat an idempotency key, 64 clients", slow: true,
			columns: askColumns, contenders: []contender{{name: "ours", measure: replay}},
		},
		{
			name: "reads", title: "reads of one payment and of the newest page, 16 clients", slow: true,
			columns: askColumns, contenders: []contender{{name: "one payment", measure: reads(false)}, {name: "newest 20", measure: reads(true)}},
		},
		{
			name: "processes", title: "complete by several processes with every role, on the same cores", slow: true,
			columns: completionColumns,
			contenders: []contender{
				{name: "1 process", measure: completion(setup{}, nil)},
				{name: "2 processes", measure: completion(setup{services: 2}, nil)},
				{name: "4 processes", measure: completion(setup{services: 4}, nil)},
			},
		},
		{
			name: "endurance", title: "complete for an hour: the minutes 5 to 10, and the last five", slow: true,
			columns: []column{
				{"first_per_s", "per s at first", "%.0f"},
				{"per_s", "at last", "%.0f"},
				{"first_memory_mib", "memory MiB at first", "%.0f"},
				{"memory_now_mib", "at last", "%.0f"},
				{"memory_mib", "most", "%.0f"},
			},
			contenders: []contender{{name: "ours", once: true, measure: endurance}},
		},
		{
			name: "projection", title: "a backlog of events into the read model, and its rebuild", slow: true,
			columns: []column{
				{"payments", "payments", "%.0f"},
				{"events_per_s", "events/s", "%.0f"},
				{"rebuild_s", "rebuild s", "%.1f"},
				{"rebuild_per_s", "payments/s", "%.0f"},
			},
			contenders: []contender{{name: "ours", measure: projection}},
		},
	}
}

var completionColumns = []column{
	{"per_s", "per s", "%.0f"},
	{"read_model_p50", "p50 ms", "%.0f"},
	{"read_model_p99", "p99 ms", "%.0f"},
	{"core_sum", "% of a core", "%.0f"},
	{"core_service", "service %", "%.0f"},
	{"core_postgres", "postgres %", "%.0f"},
	{"memory_mib", "memory MiB", "%.0f"},
	{"concurrency", "at once", "%.0f"},
}

var askColumns = []column{
	{"per_s", "per s", "%.0f"},
	{"answer_p50", "p50 ms", "%.1f"},
	{"answer_p99", "p99 ms", "%.1f"},
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
