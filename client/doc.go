// Package client speaks to the payments service. Its types and one method for each
// operation are generated from the service's OpenAPI document (`make generate`);
// what stands around them is written by hand and sees to it that a call that is
// repeated does its work once:
//
//   - A call is repeated while nobody answers or the answer says that it may be
//     repeated, after a pause that grows, is random, and is never shorter than the
//     answer's Retry-After. All of it ends with the context.
//   - A request that creates something has an Idempotency-Key: the caller's, or one
//     that is made for the call. It stays the same over all tries, and is told by
//     the answer and by each error.
//   - A refusal is a *ProblemError with a stable code; a call whose outcome nobody
//     knows is a *NoAnswerError with the key to repeat it under.
//   - Every request asks for the Version that the client was made for, whichever the
//     API key is pinned to: what the types say is what comes.
//   - Answer.ReadAfter is what a read needs in order to see what was written.
//
// It needs the standard library alone.
package client
