package api

import (
	"fmt"
	"strings"

	"payments/internal/payment"
)

// operation that writes what a request of it says.
type operation struct {
	method, schema string // of the body, in the document
	path           func(w *boundaryWorld) string
	key            func(w *boundaryWorld) string
	body           func(w *boundaryWorld) map[string]any // a fresh one, valid
	status         int                                   // of a valid request
}

func byMerchant(w *boundaryWorld) string { return w.merchant }
func byOperator(w *boundaryWorld) string { return w.operator }

func fixed(path string) func(*boundaryWorld) string {
	return func(*boundaryWorld) string { return path }
}

func (w *boundaryWorld) payment() map[string]any {
	w.n++
	return map[string]any{
		"amount": 1, "currency": "EUR", "payment_method": "pm_x", "customer": map[string]any{"reference": "c"},
		"order": map[string]any{"reference": fmt.Sprint("o-", w.n), "lines": []any{map[string]any{"sku": "A", "quantity": 1, "unit_amount": 1}}},
	}
}

func payOperation() *operation {
	return &operation{
		method: "POST", path: fixed("/v1/payments"), schema: "/components/schemas/PaymentRequest", key: byMerchant, status: 202,
		body: (*boundaryWorld).payment,
	}
}

// refundOperation is of a payment of which the most was captured that can be.
func refundOperation() *operation {
	return &operation{
		method: "POST", schema: "/components/schemas/RefundRequest", key: byMerchant, status: 202,
		path: func(w *boundaryWorld) string {
			body := w.payment()
			body["amount"] = payment.MaxAmount
			at(body, "/order/lines/0").(map[string]any)["unit_amount"] = payment.MaxAmount
			a := w.post(w.merchant, encode(body), key(w.fresh())...)
			id := a.at(w.t, "id").(string)
			w.make(id, payment.StatusSucceeded)
			return "/v1/payments/" + id + "/refunds"
		},
		body: func(*boundaryWorld) map[string]any { return map[string]any{"amount": 1, "reason": "r"} },
	}
}

func stockOperation() *operation {
	return &operation{
		method: "PUT", path: fixed("/v1/stock"), schema: "/components/schemas/StockRequest", key: byOperator, status: 200,
		body: func(w *boundaryWorld) map[string]any {
			return map[string]any{"merchant": w.merchantID, "sku": "A", "on_hand": 1}
		},
	}
}

func endpointOperation() *operation {
	return &operation{
		method: "POST", path: fixed("/v1/webhook_endpoints"), schema: "/components/schemas/WebhookEndpointRequest", key: byMerchant, status: 201,
		body: func(w *boundaryWorld) map[string]any {
			w.exec(`UPDATE webhook_endpoints SET deleted_at = now()`) // a merchant has few of them
			return map[string]any{"url": hookURL, "events": []any{"*"}}
		},
	}
}

func rotateSecretOperation() *operation {
	return &operation{
		method: "POST", schema: "/paths/~1v1~1webhook_endpoints~1{id}~1rotate_secret/post/requestBody/content/application~1json/schema", key: byMerchant, status: 201,
		path: func(w *boundaryWorld) string {
			w.exec(`UPDATE webhook_endpoints SET deleted_at = now()`)
			return "/v1/webhook_endpoints/" + w.newEndpoint(w.merchant, w.fresh()).at(w.t, "id").(string) + "/rotate_secret"
		},
		body: func(*boundaryWorld) map[string]any { return map[string]any{} },
	}
}

func redeliveryOperation() *operation {
	return &operation{
		method: "POST", schema: "/components/schemas/WebhookRedeliveryRequest", key: byMerchant, status: 202,
		path: func(w *boundaryWorld) string {
			w.exec(`UPDATE webhook_endpoints SET deleted_at = now()`)
			return "/v1/webhook_endpoints/" + w.newEndpoint(w.merchant, w.fresh()).at(w.t, "id").(string) + "/redeliver"
		},
		body: func(*boundaryWorld) map[string]any { return map[string]any{} },
	}
}

func keyOperation() *operation {
	return &operation{
		method: "POST", path: fixed("/v1/ops/keys"), schema: "/components/schemas/APIKeyRequest", key: byOperator, status: 201,
		body: func(*boundaryWorld) map[string]any {
			return map[string]any{"mode": "test", "role": "auditor", "holder": "ada"}
		},
	}
}

func merchantKeyOperation() *operation {
	o := keyOperation()
	o.body = func(w *boundaryWorld) map[string]any {
		return map[string]any{"mode": "test", "role": "merchant", "merchant": w.merchantID}
	}
	return o
}

func rotateKeyOperation() *operation {
	return &operation{
		method: "POST", schema: "/paths/~1v1~1ops~1keys~1{id}~1rotate/post/requestBody/content/application~1json/schema", key: byOperator, status: 201,
		path: func(w *boundaryWorld) string {
			id, _ := w.made(`{"mode": "test", "role": "auditor", "holder": "ada"}`, key(w.fresh())...)
			return "/v1/ops/keys/" + id + "/rotate"
		},
		body: func(*boundaryWorld) map[string]any { return map[string]any{"mode": "test"} },
	}
}

func pinOperation() *operation {
	return &operation{
		method: "POST", schema: "/paths/~1v1~1ops~1keys~1{id}~1pin/post/requestBody/content/application~1json/schema", key: byOperator, status: 200,
		path: func(w *boundaryWorld) string {
			return strings.Replace(rotateKeyOperation().path(w), "/rotate", "/pin", 1)
		},
		body: func(*boundaryWorld) map[string]any { return map[string]any{"api_version": firstVersion} },
	}
}

func actOperation() *operation {
	return &operation{
		method: "POST", schema: "/components/schemas/SagaActRequest", key: byOperator, status: 200,
		path: func(w *boundaryWorld) string { return "/v1/ops/sagas/" + w.parkedSaga() + "/pause" },
		body: func(*boundaryWorld) map[string]any { return map[string]any{"reason": "r"} },
	}
}

func proposeOperation() *operation {
	o := actOperation()
	o.path = func(w *boundaryWorld) string { return "/v1/ops/sagas/" + w.parkedSaga() + "/propose" }
	o.body = func(*boundaryWorld) map[string]any {
		return map[string]any{"reason": "r", "verdict": map[string]any{"outcome": "succeeded", "reference": "op_said"}}
	}
	return o
}

func discardOperation() *operation {
	return &operation{
		method: "POST", schema: "/components/schemas/ParkedDiscardRequest", key: byOperator, status: 200,
		path: func(w *boundaryWorld) string {
			id, _ := w.blockOne()
			return "/v1/ops/parked/" + id + "/discard"
		},
		body: func(*boundaryWorld) map[string]any { return map[string]any{"reason": "r", "all": true} },
	}
}

func replayOperation() *operation {
	return &operation{
		method: "POST", path: fixed("/v1/ops/parked/replay"), schema: "/paths/~1v1~1ops~1parked~1replay/post/requestBody/content/application~1json/schema", key: byOperator,
		status: 200, body: func(*boundaryWorld) map[string]any { return map[string]any{} },
	}
}

func explainOperation() *operation {
	return &operation{
		method: "POST", path: fixed("/v1/ops/authz/explain"), schema: "/components/schemas/ExplainRequest", key: byOperator, status: 200,
		body: func(*boundaryWorld) map[string]any {
			return map[string]any{"role": "support", "action": "refunds:create"}
		},
	}
}
