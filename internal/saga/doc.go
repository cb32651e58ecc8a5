// Package saga is an orchestrator of sagas (Garcia-Molina and Salem, 1987) with
// its state in Postgres. It knows no payment.
//
// A definition is a list of steps: compensatable ones, at most one pivot, then
// retriable ones. A local step runs inside the engine's transaction. A step that
// calls another system does so outside any transaction: its intent is committed
// before the call, its outcome after it, together with the next step's intent.
// An outcome is succeeded, rejected or unknown; unknown neither advances nor
// compensates, it is resolved by a lookup and, once the request can no longer be
// in flight, by the same request under the same key.
//
// Workers of any number of processes claim what is due with SKIP LOCKED. A claim
// is a lease by the database's clock and a new epoch; every write names the
// epoch, so that a worker that lost its lease writes nothing.
//
// It imports postgres, groupcommit and text only, so that it can be lifted out.
package saga
