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
	ParkedKey     = parkedResource
	ParkedGroup   = parkedGroupResource
	ParkedReplay  = replayResource
	ParkedDiscard = discardResource
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

// ShowParked is a parked key; messages are nil in a list.
func ShowParked(k inbox.ParkedKey, messages []inbox.ParkedMessage) ParkedKey {
	r := newParkedResource(k)
	for _, m := range messages {
		r.Data = append(r.Data, newMessageResource(m))
	}
	return r
}

// ShowParkedGroup counts the parked keys with one error.
func ShowParkedGroup(g inbox.ParkedGroup) ParkedGroup { return newParkedGroupResource(g) }

// ShowParkedReplay is what came of a replay.
func ShowParkedReplay(r inbox.Replay) ParkedReplay { return newReplayResource(r) }

// ShowParkedDiscard is what waits still behind discarded messages.
func ShowParkedDiscard(id string, remaining int64) ParkedDiscard {
	return discardResource{ID: id, Object: "parked_discard", Released: remaining == 0, Remaining: remaining}
}

// ShowRedelivery counts what is due again at an endpoint.
func ShowRedelivery(endpoint string, missed, failed int) Redelivery {
	return redeliveryResource{Object: "webhook_redelivery", Endpoint: endpoint, Missed: missed, Failed: failed}
}
