package api

import (
	"cmp"
	"maps"
	"net/http"
	"slices"

	"payments/internal/payment"
)

// problemKind is what a code means to a client, wherever it is shown: in problem
// documents, under /problems, and in docs/errors.md.
type problemKind struct {
	status          int
	title           string
	meaning, remedy string
}

// problems is the one place where a code becomes a status and a title. A code
// that is not here is a fault of ours, and answers internal_error.
var problems = map[payment.Code]problemKind{
	payment.CodeInvalid: {http.StatusBadRequest, "The request is not valid",
		"A member of the body or a parameter of the query is missing, unknown, given twice, of another type or out of its range. Nothing was written.",
		"Correct what `errors` names by JSON pointer (`/query/…` for a parameter). The Idempotency-Key is still free."},
	codeJSONInvalid: {http.StatusBadRequest, "The body is not JSON",
		"The body is empty, ends too early, is not JSON, or is not UTF-8.",
		"Send one JSON document and nothing behind it; `errors` says how far it could be read."},
	payment.CodeKeyMissing: {http.StatusBadRequest, "The idempotency key is missing",
		"This request creates something and has no Idempotency-Key.",
		"Send a fresh random key with each new request, and the same one with each repetition of it."},
	payment.CodeKeyInvalid: {http.StatusBadRequest, "The idempotency key is not valid",
		"The Idempotency-Key is not one key of 1 to 255 visible ASCII characters.",
		"Send it bare, or in quotes as RFC 9651 writes a string. A UUID will do."},
	codeVersionUnknown: {http.StatusBadRequest, "The version is not known",
		"The Payments-Version header is not one date of a version that is served here; the problem names those that are.",
		"Send one of them, or leave the header out for the version that your API key is pinned to."},
	payment.CodeReadAfterInvalid: {http.StatusBadRequest, "The read-after token is not valid",
		"The Read-After header is not one token that an answer of ours has given.",
		"Send the Read-After of the answer to your POST as it came, or leave it out."},
	codeLastEventIDInvalid: {http.StatusBadRequest, "The last event id is not valid",
		"The Last-Event-ID header is not one id that this stream has given: an event's of another stream, or a changed one.",
		"Send the `id` of the last event that came as it came, to the path and query that it came from, or leave it out."},
	payment.CodeSignatureInvalid: {http.StatusBadRequest, "The signature is not valid",
		"A notification of the payment provider is not signed with a secret that is valid here, or was signed too long ago.",
		"Configure the provider's signing secret, and check both clocks."},
	payment.CodeUnauthenticated: {http.StatusUnauthorized, "The API key is missing or not valid",
		"There is no API key in the Authorization header, which `detail` says, or the key is mistyped, unknown, expired or revoked. For a key that is not valid the answer is always the same.",
		"Send `Authorization: Bearer sk_…` with a key of this installation."},
	payment.CodeForbidden: {http.StatusForbidden, "Not permitted",
		"The role of this API key does not permit this.",
		"Use a merchant's key for payments and refunds, an operator's for stock and operations."},
	payment.CodeNotFound: {http.StatusNotFound, "Not found",
		"There is nothing at this path, no such object, or none that this API key may see. An object that is not there and one that may not be seen get the same answer.",
		"Check the path and the id. What was just posted may not be readable yet: send its Read-After with the GET."},
	codeMethodNotAllowed: {http.StatusMethodNotAllowed, "Method not allowed",
		"There is something at this path, but not for this method.",
		"Use one of the methods in the answer's Allow header."},
	codeBodyTimeout: {http.StatusRequestTimeout, "The body did not come in time",
		"The body was sent too slowly, or not to its end.",
		"Repeat the request, with the same Idempotency-Key if it has one."},
	payment.CodeOrderAlreadyPaid: {http.StatusConflict, "The order is already paid",
		"Another payment of this order reference has succeeded. An order is never paid twice.",
		"Look the payment up by `GET /v1/payments?order=…`. A new order needs a reference of its own."},
	payment.CodeOrderInProgress: {http.StatusConflict, "The order is already being paid",
		"Another payment of this order reference is under way.",
		"Wait for its outcome. After it has failed or was canceled, the order can be paid by a new payment."},
	payment.CodeActionNotAllowed: {http.StatusConflict, "The payment's state does not allow this",
		"The payment has gone too far, or not far enough, for this.",
		"Do one of `allowed_actions`; what is captured is given back by a refund."},
	payment.CodeRefundExceeds: {http.StatusConflict, "The refund is larger than what is left",
		"The refunds of the payment would exceed what was captured.",
		"Ask for less, or leave `amount` out for all that is left."},
	payment.CodeSagaState: {http.StatusConflict, "The saga's state does not allow this",
		"The saga does not stand where this act makes sense.",
		"Read the saga again: it may have moved on by itself."},
	payment.CodeSecondOperator: {http.StatusConflict, "Another person has to approve",
		"A proposed verdict or API key is approved by another person than the one who proposed it: two keys of one holder are one person's, whatever their case.",
		"Let an operator whose key has another holder look and approve."},
	payment.CodeDeadLetterMoved: {http.StatusConflict, "Another message is the key's first",
		"The message at the offset that was to be discarded is not the blocked key's first, or not any more.",
		"Read the blocked key again, and decide about the message that is its first now."},
	payment.CodeWebhookLimit: {http.StatusConflict, "The limit of webhook endpoints or secrets is reached",
		"A merchant has at most ten endpoints, and an endpoint few secrets at a time.",
		"Remove an endpoint, or wait until the secret before this one has ended."},
	payment.CodeWebhookDisabled: {http.StatusConflict, "The webhook endpoint is disabled",
		"Nothing is delivered to a disabled endpoint.",
		"Enable it first; what waits for it is delivered then."},
	payment.CodeKeyInUse: {http.StatusConflict, "The idempotency key is in use",
		"The first request with this Idempotency-Key is still being committed.",
		"Repeat the request after Retry-After: it gets the first one's answer."},
	payment.CodeAPIKeyInactive: {http.StatusConflict, "The API key is not active",
		"The API key is revoked, expired or already rotated, or does not wait for an approval.",
		"Make a new key, or rotate the one that took its place (`replaced_by`)."},
	codeEventsExpired: {http.StatusGone, "The events are no longer kept",
		"What follows this Last-Event-ID in the merchant's feed is older than the feed is kept.",
		"Open the stream without Last-Event-ID, and then list the payments (`GET /v1/payments`) for what has changed meanwhile."},
	codeBodyTooLarge: {http.StatusRequestEntityTooLarge, "The body is too large",
		"The body has more than 65,536 bytes; a provider's notification, more than 262,144.",
		"Send less at a time."},
	codeContentType: {http.StatusUnsupportedMediaType, "The content type is not supported",
		"The body is not `application/json` in UTF-8, or is compressed. An empty body needs no content type.",
		"Send `Content-Type: application/json` and no Content-Encoding."},
	payment.CodeKeyReused: {http.StatusUnprocessableEntity, "The idempotency key was used for another request",
		"This Idempotency-Key belongs to a request with another path or body.",
		"Take a fresh key for a new request. If it was meant as a repetition, send the same body."},
	codeRateLimited: {http.StatusTooManyRequests, "Too many requests",
		"This API key, or, without one, this address, has used up its quota.",
		"Wait for Retry-After. The RateLimit header says what is left beforehand."},
	codeTooManyHeld: {http.StatusTooManyRequests, "Too many requests are held open",
		"The merchant, with all of its API keys, has as many requests of one kind open as it can have at this moment: waits, event streams or exports.",
		"Repeat the request after Retry-After. Follow the merchant's feed (`GET /v1/events`) in place of single payments, and run exports one after another."},
	codeTooManyStreams: {http.StatusTooManyRequests, "Too many event streams",
		"No longer given: `too_many_held_requests` has taken its place.",
		"As of `too_many_held_requests`."},
	payment.CodeInternal: {http.StatusInternalServerError, "Internal error",
		"Something went wrong on our side. It was logged under the request id.",
		"Repeat the request, with the same Idempotency-Key if it has one; tell us the request id if it stays."},
	payment.CodeServiceUnavailable: {http.StatusServiceUnavailable, "Temporarily unavailable",
		"The service cannot do this right now.",
		"Repeat the request after Retry-After, with the same Idempotency-Key if it has one."},
	codeOverloaded: {http.StatusServiceUnavailable, "Too many unfinished payments",
		"The service has more accepted payments than it has finished in time, and takes no new ones for a moment. This attempt wrote nothing.",
		"Repeat the request after Retry-After, with the same Idempotency-Key. A request that was accepted before is answered."},
	payment.CodeReportNotReady: {http.StatusServiceUnavailable, "The reports are not there yet",
		"Reports are read from views, and these have not been filled for the first time.",
		"Repeat the request in a few minutes; an operator sees at `GET /v1/ops/reports` what holds them up."},
	payment.CodeReadAfterTimeout: {http.StatusServiceUnavailable, "Not readable yet",
		"What Read-After names has not come to the read side within five seconds. It is not lost.",
		"Repeat the request after Retry-After, or leave Read-After out for the state before it."},
}

// problemCodes are in the order of their statuses.
func problemCodes() []payment.Code {
	return slices.SortedFunc(maps.Keys(problems), func(a, b payment.Code) int {
		return cmp.Or(cmp.Compare(problems[a].status, problems[b].status), cmp.Compare(a, b))
	})
}
