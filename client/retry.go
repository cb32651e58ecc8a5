package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

type retryPolicy struct {
	tries       int // 0 for no bound
	first, most time.Duration
}

// pause before the repetition of the try: up to a span that doubles ("full jitter"),
// and at least what the service asks for.
func (p retryPolicy) pause(try int, atLeast time.Duration) time.Duration {
	span := p.most
	if doublings := try - 1; doublings < 32 && p.first<<doublings > 0 {
		span = min(span, p.first<<doublings)
	}
	pause := atLeast
	if span > 0 {
		pause += rand.N(span)
	}
	return pause
}

// repeated sends until there is an answer, a refusal that stands, or an end of
// patience. Each failed try is a *ProblemError or a *NoAnswerError.
func repeated[T any](ctx context.Context, c *Client, r request, send func(try int) (T, error)) (T, error) {
	for try := 1; ; try++ {
		answer, err := send(try)
		if err == nil {
			return answer, nil
		}
		problem, refused := errors.AsType[*ProblemError](err)
		_, lost := errors.AsType[*NoAnswerError](err)
		var atLeast time.Duration
		switch {
		case refused && problem.mayRepeat():
			atLeast = problem.RetryAfter
		case lost && r.repeatable():
		default:
			return answer, err
		}
		if c.retry.tries > 0 && try >= c.retry.tries {
			return answer, err
		}
		pause := c.retry.pause(try, atLeast)
		if end, ends := ctx.Deadline(); ctx.Err() != nil || ends && time.Until(end) <= pause {
			return answer, gaveUp(ctx, err)
		}
		c.told(Retry{Method: r.method, Path: r.path, Try: try, Pause: pause, Err: err})
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return answer, gaveUp(ctx, err)
		case <-timer.C:
		}
	}
}

// gaveUp is the last try's error, and the context's, which ends before the next.
func gaveUp(ctx context.Context, last error) error {
	ended := ctx.Err()
	if ended == nil {
		ended = context.DeadlineExceeded
	}
	if errors.Is(last, ended) {
		return last
	}
	return fmt.Errorf("%w (not repeated: %w)", last, ended)
}
