package rekey

import (
	"payments/internal/idempotency"
	"payments/internal/order"
	"payments/internal/webhook"
)

// columns of the write model, and one of the read model that nothing is copied to.
func (c Config) columns() []column {
	return []column{
		{
			name: "payments.payment_method", pool: c.Write, renewed: c.method,
			read: `
				SELECT merchant_id, id, 0, id, payment_method, payment_method_ciphertext FROM payments
				WHERE (merchant_id, id) > ($1, $2) AND $3::int IS NOT NULL ORDER BY merchant_id, id LIMIT $4`,
			write: `
				UPDATE payments p SET payment_method = u.text, payment_method_ciphertext = u.ciphertext FROM u
				WHERE p.merchant_id = u.merchant_id AND p.id = u.id AND p.payment_method = u.was_text
					AND p.payment_method_ciphertext IS NOT DISTINCT FROM u.was`,
		},
		{
			name: "orders.customer_email_ciphertext", pool: c.Write, renewed: c.sealed(order.EmailData),
			read: `
				SELECT o.merchant_id, o.id, 0, p.id, '', o.customer_email_ciphertext
				FROM orders o JOIN payments p ON p.merchant_id = o.merchant_id AND p.order_id = o.id
				WHERE (o.merchant_id, o.id) > ($1, $2) AND $3::int IS NOT NULL ORDER BY o.merchant_id, o.id LIMIT $4`,
			write: `
				UPDATE orders o SET customer_email_ciphertext = u.ciphertext FROM u
				WHERE o.merchant_id = u.merchant_id AND o.id = u.id AND o.customer_email_ciphertext = u.was`,
		},
		{
			name: "idempotency_keys.body", pool: c.Write, renewed: c.answer,
			// A key made on the command line has no answer to keep.
			read: `
				SELECT merchant_id, key, 0, resource_id, '', nullif(body, '') FROM idempotency_keys
				WHERE (merchant_id, key) > ($1, $2) AND $3::int IS NOT NULL ORDER BY merchant_id, key LIMIT $4`,
			write: `
				UPDATE idempotency_keys k SET body = u.ciphertext FROM u
				WHERE k.merchant_id = u.merchant_id AND k.key = u.id AND k.body = u.was`,
		},
		{
			name: "webhook_secrets.ciphertext", pool: c.Write, renewed: c.secretOfEndpoint,
			read: `
				SELECT merchant_id, endpoint_id, number, endpoint_id, '', ciphertext FROM webhook_secrets
				WHERE (merchant_id, endpoint_id, number) > ($1, $2, $3) ORDER BY merchant_id, endpoint_id, number LIMIT $4`,
			write: `
				UPDATE webhook_secrets s SET ciphertext = u.ciphertext FROM u
				WHERE s.merchant_id = u.merchant_id AND s.endpoint_id = u.id AND s.number = u.number AND s.ciphertext = u.was`,
		},
		{
			// A row from before URLs were sealed has the whole URL in url.
			name: "webhook_endpoints.url", pool: c.Write, renewed: c.urlOfEndpoint,
			read: `
				SELECT merchant_id, id, 0, id, CASE WHEN url_ciphertext IS NULL AND url ~ '^https?://[^/?]*[/?]' THEN url ELSE '' END, url_ciphertext
				FROM webhook_endpoints WHERE (merchant_id, id) > ($1, $2) AND $3::int IS NOT NULL ORDER BY merchant_id, id LIMIT $4`,
			write: `
				UPDATE webhook_endpoints e SET url = coalesce(nullif(u.text, ''), e.url), url_ciphertext = u.ciphertext FROM u
				WHERE e.merchant_id = u.merchant_id AND e.id = u.id AND e.url_ciphertext IS NOT DISTINCT FROM u.was AND u.was_text IN ('', e.url)`,
		},
		{
			// Until the authorization is settled. A worker that holds the saga would write back
			// what it has read: it is left for the next run.
			name: "sagas.data", pool: c.Write, renewed: c.methodOfSaga,
			read: `
				SELECT merchant_id, id, CASE WHEN state IN ('completed', 'compensated') THEN 1 WHEN owner IS NOT NULL THEN 2 ELSE 0 END, coalesce(data->>'payment_id', ''),
					coalesce(data->>'payment_method', ''), decode(data->>'payment_method_ciphertext', 'base64')
				FROM sagas WHERE (merchant_id, id) > ($1, $2) AND $3::int IS NOT NULL ORDER BY merchant_id, id LIMIT $4`,
			write: `
				UPDATE sagas s SET data = CASE WHEN u.ciphertext IS NULL THEN s.data - 'payment_method' - 'payment_method_ciphertext'
					ELSE jsonb_set(s.data, '{payment_method_ciphertext}', to_jsonb(replace(encode(u.ciphertext, 'base64'), E'\n', ''))) END FROM u
				WHERE s.merchant_id = u.merchant_id AND s.id = u.id AND (s.owner IS NULL OR s.due_at IS NULL) AND coalesce(s.data->>'payment_method', '') = u.was_text
					AND decode(s.data->>'payment_method_ciphertext', 'base64') IS NOT DISTINCT FROM u.was`,
		},
		{
			// Nothing of it is shown: what events told before payment methods were encrypted.
			name: "payment_timeline.data", pool: c.Read,
			renewed: func(r row) (row, bool, error) { return row{}, true, nil },
			read: `
				SELECT merchant_id, payment_id, 0, '', coalesce(data #>> '{placed,payment_method}', ''), NULL::bytea FROM payment_timeline
				WHERE sequence = 1 AND (merchant_id, payment_id) > ($1, $2) AND $3::int IS NOT NULL ORDER BY merchant_id, payment_id LIMIT $4`,
			write: `
				UPDATE payment_timeline t SET data = t.data #- '{placed,payment_method}' FROM u
				WHERE t.merchant_id = u.merchant_id AND t.payment_id = u.id AND t.sequence = 1`,
		},
	}
}

// sealed is a ciphertext alone.
func (c Config) sealed(data func(bound string) []byte) func(row) (row, bool, error) {
	return func(r row) (row, bool, error) {
		if c.Cipher.Current(r.Ciphertext) {
			return r, false, nil
		}
		plaintext, err := c.Cipher.Decrypt(r.Ciphertext, data(r.Bound))
		if err != nil {
			return r, false, err
		}
		r.Ciphertext, err = c.Cipher.Encrypt(plaintext, data(r.Bound))
		return r, true, err
	}
}

// answer is bound to its merchant and key, or, from before, to what was made alone.
func (c Config) answer(r row) (row, bool, error) {
	data := func(bound string) []byte {
		return idempotency.AnswerData(idempotency.Request{MerchantID: r.Merchant, Key: r.ID}, bound)
	}
	plaintext, err := c.Cipher.Decrypt(r.Ciphertext, data(r.Bound))
	if err == nil && c.Cipher.Current(r.Ciphertext) {
		return r, false, nil
	}
	if err != nil {
		if plaintext, err = c.Cipher.Decrypt(r.Ciphertext, idempotency.BodyData(r.Bound)); err != nil {
			return r, false, err
		}
	}
	r.Ciphertext, err = c.Cipher.Encrypt(plaintext, data(r.Bound))
	return r, true, err
}

func (c Config) secretOfEndpoint(r row) (row, bool, error) {
	return c.sealed(func(endpoint string) []byte { return webhook.SecretData(endpoint, r.Number) })(r)
}

// urlOfEndpoint is sealed, or, from before, in the clear; Text is then what stays readable of it.
func (c Config) urlOfEndpoint(r row) (row, bool, error) {
	if r.Text == "" {
		return c.sealed(webhook.URLData)(r)
	}
	sealed, err := c.Cipher.Encrypt([]byte(r.Text), webhook.URLData(r.Bound))
	r.Text, r.Ciphertext = webhook.ShownURL(r.Text), sealed
	return r, true, err
}

// method is a payment's: sealed, or from before, when there was only its text.
func (c Config) method(r row) (row, bool, error) {
	token := r.Text
	if r.Ciphertext != nil {
		if c.Methods.Current(r.Text, r.Ciphertext) {
			return r, false, nil
		}
		var err error
		if token, err = c.Methods.Open(r.Ciphertext, r.Bound); err != nil {
			return r, false, err
		}
	}
	var err error
	r.Text, r.Ciphertext, err = c.Methods.Seal(token, r.Bound)
	return r, true, err
}

// methodOfSaga is a ciphertext, or, of version 1, a text: one that has ended forgets it,
// and another needs it as it is until it has.
func (c Config) methodOfSaga(r row) (row, bool, error) {
	ended, held := r.Number == 1, r.Number == 2
	switch {
	case r.Text != "" && ended:
		return row{}, true, nil
	case r.Text == "" && c.Cipher.Current(r.Ciphertext):
		return r, false, nil
	case r.Text != "" || held:
		return r, false, errKept
	}
	token, err := c.Methods.Open(r.Ciphertext, r.Bound)
	if err != nil {
		return r, false, err
	}
	_, r.Ciphertext, err = c.Methods.Seal(token, r.Bound)
	return r, true, err
}
