package api

// copied inserts a row of the table once more, changed as the JSON object says.
func copied(table, changed string) string {
	return `INSERT INTO ` + table + ` SELECT (jsonb_populate_record(t, '` + changed + `')).* FROM ` + table + ` t LIMIT 1`
}

func again(table string) string { return copied(table, "{}") }

func set(table, to string) string { return `UPDATE ` + table + ` SET ` + to }

// twice is of two payments with the same reference of an account.
func twice(reference string) string {
	return `DO $$ BEGIN ` + set("payments", reference+" = 'op_1', provider_account = 'simulator:led_1'") + `; ` +
		copied("payments", `{"id": "pay_`+freshID+`", "order_id": "x"}`) + `; END $$`
}

const freshID = `01m8702cvkfn8aqyvxe63m804e`

// violations is what each constraint refuses, beside a row of each table (written).
func violations() map[string]string {
	return map[string]string{
		"minor_units_range":    set("payments", "amount_captured = -1"),
		"reference_length":     set("orders", "reference = ''"),
		"reference_no_control": set("orders", `reference = E'a\tb'`),
		"sku_format":           copied("order_lines", `{"sku": ""}`),

		"merchants_id_check": set("merchants", "id = 'x'"),
		"merchants_pkey":     again("merchants"),

		"api_keys_expiry":           set("api_keys", "expires_at = created_at"),
		"api_keys_holder":           set("api_keys", "holder = NULL"),
		"api_keys_id_check":         copied("api_keys", `{"id": "x"}`),
		"api_keys_mac_check":        set("api_keys", "mac = ''"),
		"api_keys_merchant":         `UPDATE api_keys SET merchant_id = NULL, holder = 'ada' WHERE role = 'merchant'`,
		"api_keys_merchant_id_fkey": `UPDATE api_keys SET merchant_id = 'x' WHERE role = 'merchant'`,
		"api_keys_networks":         set("api_keys", "networks = '{::ffff:1.2.3.4/128}'"),
		"api_keys_pkey":             again("api_keys"),
		"api_keys_replaced":         set("api_keys", "replaced_by = id"),
		"api_keys_replaced_by_fkey": set("api_keys", "replaced_by = 'x'"),
		"api_keys_role_check":       `UPDATE api_keys SET role = 'root' WHERE role = 'operator'`,
		"api_keys_replaces":         set("api_keys", "replaces = id"),
		"api_keys_replaces_fkey":    set("api_keys", "replaces = 'x'"),
		"api_keys_seed_check":       set("api_keys", "seed = '', approved_at = NULL"),
		"api_keys_unapproved":       set("api_keys", "approved_at = NULL"),
		"api_keys_waits":            set("api_keys", "seed = sha256('')"),

		"key_acts_action_check":  copied("key_acts", `{"id": "kac_`+freshID+`", "action": "x"}`),
		"key_acts_actor":         copied("key_acts", `{"id": "kac_`+freshID+`", "operator": "key_x"}`),
		"key_acts_detail_check":  copied("key_acts", `{"id": "kac_`+freshID+`", "detail": ""}`),
		"key_acts_holder_check":  copied("key_acts", `{"id": "kac_`+freshID+`", "operator": "x", "holder": " "}`),
		"key_acts_id_check":      copied("key_acts", `{"id": "x"}`),
		"key_acts_key_id_fkey":   copied("key_acts", `{"id": "kac_`+freshID+`", "key_id": "x"}`),
		"key_acts_operator_fkey": copied("key_acts", `{"id": "kac_`+freshID+`", "operator": "x", "holder": "ada"}`),
		"key_acts_origin_check":  copied("key_acts", `{"id": "kac_`+freshID+`", "origin": ""}`),
		"key_acts_pkey":          again("key_acts"),
		"key_acts_source_check":  copied("key_acts", `{"id": "kac_`+freshID+`", "source": "x"}`),
		"key_acts_append_only":   set("key_acts", "detail = 'x'"),

		"staff_refunds_amount_check":               copied("staff_refunds", `{"refund_id": "x", "amount": 0}`),
		"staff_refunds_append_only":                set("staff_refunds", "amount = 2"),
		"staff_refunds_currency_check":             copied("staff_refunds", `{"refund_id": "x", "currency": "XXX"}`),
		"staff_refunds_holder_check":               copied("staff_refunds", `{"refund_id": "x", "holder": " "}`),
		"staff_refunds_merchant_id_refund_id_fkey": copied("staff_refunds", `{"refund_id": "x"}`),
		"staff_refunds_operator_fkey":              copied("staff_refunds", `{"refund_id": "x", "operator": "x"}`),
		"staff_refunds_pkey":                       again("staff_refunds"),

		"idempotency_keys_fingerprint_check": set("idempotency_keys", "fingerprint = ''"),
		"idempotency_keys_key":               set("idempotency_keys", "key = ''"),
		"idempotency_keys_pkey":              again("idempotency_keys"),
		"idempotency_keys_status_check":      set("idempotency_keys", "status = 500"),

		"orders_amount_check":        set("orders", "amount = 0"),
		"orders_currency_check":      set("orders", "currency = 'XXX'"),
		"orders_customer_email":      set("orders", "customer_email_ciphertext = 'ada@example.com'"),
		"orders_id_check":            copied("orders", `{"id": "x", "reference": "p"}`),
		"orders_merchant_id_fkey":    copied("orders", `{"merchant_id": "x"}`),
		"orders_business_keys":       set("orders", `reference = U&'a\200b'`),
		"orders_one_live_or_won":     copied("orders", `{"id": "ord_`+freshID+`", "reference_repeated": true}`),
		"orders_one_live_or_won_key": `DROP INDEX orders_one_live_or_won; ` + copied("orders", `{"id": "ord_`+freshID+`"}`),
		"orders_pkey":                copied("orders", `{"reference": "p"}`),
		"orders_sequence_check":      set("orders", "sequence = 0"),
		"orders_status_check":        set("orders", "status = 'x'"),
		"orders_sum":                 set("orders", "amount = 2") + `; SET CONSTRAINTS orders_sum IMMEDIATE`,

		"order_lines_append_only":               set("order_lines", "quantity = 2"),
		"order_lines_line_check":                copied("order_lines", `{"line": 100}`),
		"order_lines_merchant_id_order_id_fkey": copied("order_lines", `{"order_id": "x"}`),
		"order_lines_pkey":                      again("order_lines"),
		"order_lines_quantity_check":            copied("order_lines", `{"quantity": 0}`),
		"order_lines_whole":                     copied("order_lines", `{"line": 51}`),

		"payments_amount_check":               set("payments", "amount = 0"),
		"payments_authorization_once":         twice("authorization_reference"),
		"payments_capture_once":               twice("capture_reference"),
		"payments_capture_method_check":       set("payments", "capture_method = 'x'"),
		"payments_captured_in_full":           set("payments", "amount = 2, amount_captured = 1"),
		"payments_currency_check":             set("payments", "currency = 'XXX'"),
		"payments_failure":                    set("payments", "failure_code = 'x'"),
		"payments_id_check":                   copied("payments", `{"id": "x", "order_id": "y"}`),
		"payments_manual":                     set("payments", "status = 'requires_capture'"),
		"payments_merchant_id_order_id_fkey":  copied("payments", `{"id": "pay_`+freshID+`", "order_id": "x"}`),
		"payments_merchant_id_order_id_key":   copied("payments", `{"id": "pay_`+freshID+`"}`),
		"payments_payment_method_check":       set("payments", "payment_method = '4111111111111111'"),
		"payments_payment_method_fingerprint": set("payments", `payment_method = 'pm_card_visa', payment_method_ciphertext = 'x'`),
		"payments_pkey":                       again("payments"),
		"payments_refunds_bounded":            set("payments", "amount_refunding = 1"),
		"payments_status_check":               set("payments", "status = 'x'"),
		"payments_transition": `DO $$ BEGIN
			UPDATE payments SET status = 'canceled';
			UPDATE payments SET status = 'processing';
		END $$`,

		"refunds_amount_check":                set("refunds", "amount = 0"),
		"refunds_failure":                     set("refunds", "status = 'failed'"),
		"refunds_id_check":                    copied("refunds", `{"id": "x"}`),
		"refunds_merchant_id_payment_id_fkey": set("refunds", "payment_id = 'x'"),
		"refunds_pkey":                        again("refunds"),
		"refunds_provider_reference":          copied("refunds", `{"id": "ref_`+freshID+`"}`),
		"refunds_status_check":                set("refunds", "status = 'x'"),
		"refunds_transition": `DO $$ BEGIN
			UPDATE refunds SET status = 'succeeded';
			UPDATE refunds SET status = 'pending';
		END $$`,

		"disputes_currency_check":                                set("disputes", "currency = 'eur'"),
		"disputes_id_check":                                      copied("disputes", `{"id": "x", "provider_reference": "op_2"}`),
		"disputes_merchant_id_payment_id_fkey":                   set("disputes", "payment_id = 'x'"),
		"disputes_merchant_id_payment_id_provider_reference_key": copied("disputes", `{"id": "dsp_`+freshID+`"}`),
		"disputes_pkey":                                          copied("disputes", `{"provider_reference": "op_2"}`),
		"disputes_provider_reference_check":                      set("disputes", "provider_reference = ''"),
		"disputes_reason_check":                                  set("disputes", "reason = ''"),
		"disputes_status_check":                                  set("disputes", "status = 'x'"),

		"provider_changes_accepted":                                set("provider_changes", "reason = 'r'"),
		"provider_changes_decided":                                 set("provider_changes", "decided_at = now()"),
		"provider_changes_detail_check":                            set("provider_changes", "detail = ''"),
		"provider_changes_holder_check":                            acceptedChange("'key'", "''", "'r'"),
		"provider_changes_id_check":                                copied("provider_changes", `{"id": "x", "subject": "op_2"}`),
		"provider_changes_kind_check":                              set("provider_changes", "kind = ''"),
		"provider_changes_merchant_id_payment_id_fkey":             set("provider_changes", "payment_id = 'x'"),
		"provider_changes_merchant_id_payment_id_kind_subject_key": copied("provider_changes", `{"id": "pch_`+freshID+`"}`),
		"provider_changes_operator_check":                          acceptedChange("''", "'ada'", "'r'"),
		"provider_changes_pkey":                                    copied("provider_changes", `{"subject": "op_2"}`),
		"provider_changes_reason_check":                            acceptedChange("'key'", "'ada'", "' '"),
		"provider_changes_state_check":                             set("provider_changes", "state = 'x'"),
		"provider_changes_subject_check":                           set("provider_changes", "subject = ''"),

		"provider_comparisons_pkey": again("provider_comparisons"),

		"stock_conserved":        set("stock", "sold = 1"),
		"stock_merchant_id_fkey": copied("stock", `{"merchant_id": "x"}`),
		"stock_on_hand_check":    set("stock", "on_hand = -1, received = -1"),
		"stock_room":             set("stock", "on_hand = 1000000000, reserved = 1, received = 1000000001 + sold"),
		"stock_pkey":             again("stock"),
		"stock_reserved_check":   set("stock", "reserved = -1, received = received - 1"),
		"stock_sold_check":       set("stock", "sold = -1, received = received - 1"),

		"stock_reservations_merchant_id_order_id_fkey": reserved(copied("stock_reservations", `{"order_id": "x"}`)),
		"stock_reservations_merchant_id_sku_fkey":      reserved(set("stock_reservations", "sku = 'B'")),
		"stock_reservations_pkey":                      reserved(again("stock_reservations")),
		"stock_reservations_quantity_check":            reserved(set("stock_reservations", "quantity = 0")),
		"stock_reservations_state_check":               reserved(set("stock_reservations", "state = 'x'")),

		"webhook_endpoints_disabled":              set("webhook_endpoints", "disabled_at = now()"),
		"webhook_endpoints_disabled_reason_check": set("webhook_endpoints", "disabled_at = now(), disabled_reason = 'x'"),
		"webhook_endpoints_events":                set("webhook_endpoints", "events = '{order.placed,order.placed}'"),
		"webhook_endpoints_exhausted_check":       set("webhook_endpoints", "exhausted = -1"),
		"webhook_endpoints_id_check":              copied("webhook_endpoints", `{"id": "x"}`),
		"webhook_endpoints_merchant_id_fkey":      copied("webhook_endpoints", `{"merchant_id": "x"}`),
		"webhook_endpoints_pkey":                  again("webhook_endpoints"),
		"webhook_endpoints_url":                   set("webhook_endpoints", "url = 'x'"),
		"webhook_endpoints_url_ciphertext_check":  set("webhook_endpoints", "url_ciphertext = ''"),
		"webhook_endpoints_url_sealed":            set("webhook_endpoints", "url = 'https://a.example/token', url_ciphertext = sha256('')"),

		"encryption_uses_encryptions_check": `INSERT INTO encryption_uses VALUES ('00000000', -1)`,
		"encryption_uses_key_check":         `INSERT INTO encryption_uses VALUES ('x', 1)`,
		"encryption_uses_pkey":              `INSERT INTO encryption_uses VALUES ('00000000', 1), ('00000000', 1)`,

		"webhook_secrets_merchant_id_endpoint_id_fkey": set("webhook_secrets", "endpoint_id = 'x'"),
		"webhook_secrets_number_check":                 set("webhook_secrets", "number = 0"),
		"webhook_secrets_one_current":                  copied("webhook_secrets", `{"number": 2}`),
		"webhook_secrets_pkey":                         again("webhook_secrets"),

		"webhook_deliveries_attempts_check":                       set("webhook_deliveries", "attempts = -1"),
		"webhook_deliveries_body_check":                           set("webhook_deliveries", "body = ''"),
		"webhook_deliveries_check":                                set("webhook_deliveries", "tries = 1"),
		"webhook_deliveries_id_check":                             copied("webhook_deliveries", `{"id": "x", "event_id": "f"}`),
		"webhook_deliveries_merchant_id_endpoint_id_event_id_key": copied("webhook_deliveries", `{"id": "whd_`+freshID+`"}`),
		"webhook_deliveries_merchant_id_endpoint_id_fkey":         set("webhook_deliveries", "endpoint_id = 'x'"),
		"webhook_deliveries_not_stranded":                         set("webhook_deliveries", "due_at = NULL"),
		"webhook_deliveries_pkey":                                 again("webhook_deliveries"),
		"webhook_deliveries_state_check":                          set("webhook_deliveries", "state = 'x', due_at = NULL, settled_at = now()"),

		"webhook_missed_body_check":                   set("webhook_missed", "body = ''"),
		"webhook_missed_merchant_id_endpoint_id_fkey": set("webhook_missed", "endpoint_id = 'x'"),
		"webhook_missed_pkey":                         again("webhook_missed"),

		"webhook_attempts_detail_check":                 set("webhook_attempts", "detail = ''"),
		"webhook_attempts_duration_ms_check":            set("webhook_attempts", "duration_ms = -1"),
		"webhook_attempts_merchant_id_delivery_id_fkey": set("webhook_attempts", "delivery_id = 'x'"),
		"webhook_attempts_number_check":                 set("webhook_attempts", "number = 0"),
		"webhook_attempts_outcome_check":                set("webhook_attempts", "outcome = 'x'"),
		"webhook_attempts_pkey":                         again("webhook_attempts"),
		"webhook_attempts_status_check":                 set("webhook_attempts", "status = 0"),

		"saga_actions_action_check":             set("saga_actions", "action = 'x', verdict = NULL"),
		"saga_actions_holder":                   set("saga_actions", "holder = ' '"),
		"saga_actions_merchant_id_saga_id_fkey": set("saga_actions", "saga_id = 'x'"),
		"saga_actions_number_check":             set("saga_actions", "number = 0"),
		"saga_actions_operator":                 set("saga_actions", "operator = ''"),
		"saga_actions_pkey":                     again("saga_actions"),
		"saga_actions_reason":                   set("saga_actions", "reason = ' '"),
		"saga_actions_verdict":                  set("saga_actions", "verdict = '{}'"),

		"saga_attempts_call_check":               set("saga_attempts", "call = 'x'"),
		"saga_attempts_finished":                 set("saga_attempts", "finished_at = now()"),
		"saga_attempts_merchant_id_saga_id_fkey": set("saga_attempts", "saga_id = 'x'"),
		"saga_attempts_number_check":             set("saga_attempts", "number = 0"),
		"saga_attempts_outcome_check":            set("saga_attempts", "finished_at = now(), outcome = 'x'"),
		"saga_attempts_pkey":                     again("saga_attempts"),

		"provider_accounts_account_check":         copied("provider_accounts", `{"account": "", "inherits": false}`),
		"provider_accounts_inherited_up_to_check": set("provider_accounts", "inherited_up_to = '{}'"),
		"provider_accounts_one_heir":              copied("provider_accounts", `{"account": "simulator:led_2"}`),
		"provider_accounts_pkey":                  again("provider_accounts"),

		"saga_definitions_hash_check":    set("saga_definitions", "hash = ''"),
		"saga_definitions_pkey":          again("saga_definitions"),
		"saga_definitions_version_check": set("saga_definitions", "version = 0"),

		"sagas_attempts_check":                     set("sagas", "attempts = -1"),
		"sagas_merchant_id_definition_subject_key": copied("sagas", `{"id": "x"}`),
		"sagas_not_stranded":                       set("sagas", "due_at = NULL"),
		"sagas_parked":                             set("sagas", "parked = '{}'"),
		"sagas_parked_from_check":                  set("sagas", "state = 'parked', due_at = NULL, parked = '{}', parked_from = 'x'"),
		"sagas_pkey":                               again("sagas"),
		"sagas_state_check":                        set("sagas", "state = 'x'"),
		"sagas_tries_check":                        set("sagas", "tries = -1"),
		"sagas_version_check":                      set("sagas", "version = 0"),

		"outbox_headers_check":           set("outbox", "headers = '{a}'"),
		"outbox_key_hash_check":          set("outbox", "key_hash = -1"),
		"outbox_pkey":                    copied("outbox", `{"sequence": 2}`),
		"outbox_sequence_check1":         set("outbox", "sequence = 0"),
		"outbox_checkpoints_pkey":        again("outbox_checkpoints"),
		"outbox_dropped_pkey":            again("outbox_dropped"),
		"outbox_dropped_sequence_check":  set("outbox_dropped", "sequence = 0"),
		"outbox_lost_pkey":               again("outbox_lost"),
		"outbox_lost_sequence_check":     set("outbox_lost", "sequence = 0"),
		"outbox_partitions_check":        set("outbox_partitions", "high = low"),
		"outbox_partitions_parent_check": copied("outbox_partitions", `{"parent": "x"}`),
		"outbox_partitions_pkey":         again("outbox_partitions"),
		"outbox_relays_pkey":             again("outbox_relays"),
		"outbox_shards_pkey":             again("outbox_shards"),
		"outbox_shards_shard_check":      copied("outbox_shards", `{"shard": -1}`),

		"inbox_discarded_append_only":        set("inbox_discarded", "reason = 'x'"),
		"inbox_discarded_discarded_by_check": insertDiscarded("discarded_by", "''"),
		"inbox_discarded_holder":             insertDiscarded("holder", "NULL"),
		"inbox_discarded_pkey":               insertDiscarded("id", "id"),
		"inbox_discarded_reason":             insertDiscarded("reason", "' '"),
		"inbox_messages_pkey":                again("inbox_messages"),
		"inbox_offsets_attempts_check":       set("inbox_offsets", "attempts = -1"),
		"inbox_offsets_pkey":                 again("inbox_offsets"),
		"inbox_parked_keys_pkey":             again("inbox_parked_keys"),
		"inbox_parked_parked_key_fkey":       set("inbox_parked", "parked_key = 'x'"),
		"inbox_parked_once":                  copied("inbox_parked", `{"arrival": 999}`),
		"inbox_parked_pkey":                  again("inbox_parked"),
		"inbox_retention_one_row_check":      set("inbox_retention", "one_row = false"),
		"inbox_retention_pkey":               again("inbox_retention"),

		"feed_events_pkey":                again("feed_events"),
		"feed_heads_pkey":                 again("feed_heads"),
		"feed_heads_position_check":       set("feed_heads", "position = 0"),
		"payment_term_found":              again("payment_term"),
		"payment_timeline_pkey":           again("payment_timeline"),
		"payment_timeline_sequence_check": set("payment_timeline", "sequence = 0"),
		"payment_view_order_id_key":       copied("payment_view", `{"payment_id": "x"}`),
		"payment_view_pkey":               again("payment_view"),
		"payment_view_sequence_check":     set("payment_view", "sequence = 0"),
		"refund_view_pkey":                again("refund_view"),

		"report_refreshes_check":         set("report_refreshes", "ended_at = started_at - interval '1 s'"),
		"report_refreshes_failure_check": set("report_refreshes", "failure = '', seconds = NULL"),
		"report_refreshes_outcome":       set("report_refreshes", "failure = 'x'"),
		"report_refreshes_pkey":          `INSERT INTO report_refreshes OVERRIDING SYSTEM VALUE SELECT * FROM report_refreshes`,
		"report_request_one_check":       set("report_request", "one = false"),
		"report_request_pkey":            again("report_request"),

		"goose_db_version_pkey": `INSERT INTO goose_db_version OVERRIDING SYSTEM VALUE SELECT * FROM goose_db_version`,
	}
}

// acceptedChange is accepted by the operator and the holder, for the reason.
func acceptedChange(operator, holder, reason string) string {
	return set("provider_changes", "state = 'accepted', decided_at = now(), operator = "+operator+", holder = "+holder+", reason = "+reason)
}

// reserved does it to the order's reservation.
func reserved(sql string) string {
	return `DO $$ BEGIN
		INSERT INTO stock_reservations SELECT merchant_id, order_id, sku, quantity, 'reserved' FROM order_lines JOIN stock USING (merchant_id, sku);
		` + sql + `;
	END $$`
}

// insertDiscarded inserts once more, under a number of its own, what nobody may update.
func insertDiscarded(column, value string) string {
	values := map[string]string{"id": "id + 1000", "discarded_by": "discarded_by", "holder": "holder", "reason": "reason"}
	values[column] = value
	return `INSERT INTO inbox_discarded (id, parked_key, consumer, topic, partition, "offset", key, headers, value, error, parked_at, discarded_by, holder, reason)
		OVERRIDING SYSTEM VALUE
		SELECT ` + values["id"] + `, parked_key, consumer, topic, partition, "offset", key, headers, value, error, parked_at, ` +
		values["discarded_by"] + `, ` + values["holder"] + `, ` + values["reason"] + ` FROM inbox_discarded`
}
