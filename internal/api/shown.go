package api

import (
	"payments/internal/access"
	"payments/internal/inbox"
	"payments/internal/order"
)

// What operators are shown, for the command line: it shows the same members, read from the
// database or over HTTP.
type (
	Saga          = sagaResource
	SagaRejection = rejectionResource
	Key           = keyResource
	KeyAct        = keyActResource
	BlockedKey    = blockedKeyResource
	BlockedGroup  = blockedGroupResource
	KeyReplay     = replayResource
	KeyDiscard    = discardResource
	Redelivery    = redeliveryResource
)

// ShowSaga is a saga of a list.
func ShowSaga(s order.SagaSummary) Saga { return newSagaResource(s) }

// ShowSagaFile is a saga with its attempts and the operators' acts.
func ShowSagaFile(f order.SagaFile) Saga { return newSagaFileResource(f) }

// ShowKey is an API key without its secret.
func ShowKey(k access.APIKey) Key { return newKeyResource(k) }

// ShowKeyAct is one act on an API key.
func ShowKeyAct(a access.KeyAct) KeyAct { return newKeyActResource(a) }

// ShowBlockedKey is a blocked key; messages are nil in a list.
func ShowBlockedKey(k inbox.BlockedKey, messages []inbox.DeadLetter) BlockedKey {
	r := newBlockedKeyResource(k)
	for _, m := range messages {
		r.Data = append(r.Data, newDeadLetterResource(m))
	}
	return r
}

// ShowBlockedGroup counts the blocked keys with one error.
func ShowBlockedGroup(g inbox.BlockedGroup) BlockedGroup { return newBlockedGroupResource(g) }

// ShowReplay is what came of a replay.
func ShowReplay(r inbox.Replay) KeyReplay { return newReplayResource(r) }

// ShowDiscard is what waits still behind discarded messages.
func ShowDiscard(id string, remaining int64) KeyDiscard {
	return discardResource{ID: id, Object: "parked_discard", Released: remaining == 0, Remaining: remaining}
}

// ShowRedelivery counts what is due again at an endpoint.
func ShowRedelivery(endpoint string, missed, failed int) Redelivery {
	return redeliveryResource{Object: "webhook_redelivery", Endpoint: endpoint, Missed: missed, Failed: failed}
}
