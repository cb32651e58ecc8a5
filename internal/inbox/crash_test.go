package inbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"payments/internal/postgres"
)

// The test's own program, started again with these, is a consumer whose handler
// kills it.
const (
	childURL  = "INBOX_TEST_CHILD_URL"
	childMode = "INBOX_TEST_CHILD_MODE"
)

const childAttempts = 3

// crashLog is what the child consumes: the poison is the second message of p.
func crashLog() (partitions [2][]Message) {
	for n := range 4 {
		partitions[0] = append(partitions[0], message(int64(3*n), "a", n+1), message(int64(3*n+1), "p", n+1), message(int64(3*n+2), "b", n+1))
		innocent := message(int64(n), "c", n+1)
		innocent.Partition = 1
		partitions[1] = append(partitions[1], innocent)
	}
	return partitions
}

// child ends well once everything is taken in.
func child(mode string) error {
	ctx := context.Background()
	pool, err := postgres.Open(ctx, os.Getenv(childURL))
	if err != nil {
		return err
	}
	defer pool.Close()
	innocent, poison := make(chan struct{}), make(chan struct{})
	var first, second sync.Once
	handle := func(ctx context.Context, tx pgx.Tx, m Message) error {
		// The poison strikes while an innocent message is in hand, if it can.
		switch m.Headers[HeaderID] {
		case "p-2":
			first.Do(func() { close(poison) })
			meet(innocent)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			<-ctx.Done()
		case "c-1":
			second.Do(func() { close(innocent) })
			meet(poison)
		}
		return record(ctx, tx, m)
	}
	if mode == "naive" {
		return naiveChild(ctx, pool, handle)
	}
	in, err := childInbox(pool, handle)
	if err != nil {
		return err
	}
	partitions := crashLog()
	ends := make(chan error, len(partitions))
	for i, log := range partitions {
		go func() {
			next, err := in.Claim(ctx, "events", i, 1, nil)
			for len(log) > 0 && log[0].Offset < next.Next {
				log = log[1:]
			}
			if err == nil {
				_, err = in.Apply(ctx, 1, log)
			}
			ends <- err
		}()
	}
	return errors.Join(<-ends, <-ends)
}

// meet waits for the other, but not for one that does not come.
func meet(other <-chan struct{}) {
	select {
	case <-other:
	case <-time.After(300 * time.Millisecond):
	}
}

// naiveChild counts an attempt where the effect is, so that a crash takes the
// count back with it.
func naiveChild(ctx context.Context, pool *pgxpool.Pool, handle func(context.Context, pgx.Tx, Message) error) error {
	for _, m := range crashLog()[0] {
		err := postgres.InTx(ctx, pool, func(tx pgx.Tx) error {
			attempts := 0
			if err := tx.QueryRow(ctx, `
				INSERT INTO inbox_offsets AS o (consumer, topic, partition, generation, attempts) VALUES ('naive', 'events', $1, 0, 1)
				ON CONFLICT (consumer, topic, partition) DO UPDATE SET attempts = o.attempts + 1 RETURNING attempts`, m.Offset).Scan(&attempts); err != nil {
				return err
			}
			if attempts > childAttempts {
				return nil // to a dead-letter topic
			}
			return handle(ctx, tx, m)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// runChild is false if the process was killed.
func runChild(t *testing.T, url, mode string) bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childURL+"="+url, childMode+"="+mode)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return false
	}
	if err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	return true
}

// Crash-looping poison: a message that kills its process is delivered to the
// next one, which it kills.
func TestTrapAMessageThatKillsItsProcessIsADeadLetterAndOthersFlow(t *testing.T) {
	t.Run("naive", func(t *testing.T) {
		pool := database(t)
		for range 3 * childAttempts {
			if runChild(t, pool.Config().ConnString(), "naive") {
				t.Fatal("the naive consumer got past the poison, want it to show the trap")
			}
		}
		if got := effects(t, pool); strings.Count(fmt.Sprint(got), "b-4") > 0 {
			t.Errorf("effects %v", got)
		}
	})
	pool := database(t)
	deaths := 0
	for !runChild(t, pool.Config().ConnString(), "") {
		if deaths++; deaths > childAttempts {
			t.Fatalf("killed %d times, want %d at most", deaths, childAttempts)
		}
	}
	if deaths != childAttempts {
		t.Errorf("killed %d times, want as many attempts as it may have", deaths)
	}
	same(t, "dead letters", deadLetters(t, pool), "p-2", "p-3", "p-4")
	reasons := column(t, pool, `SELECT reason FROM inbox_parked ORDER BY "offset" LIMIT 1`)
	if !strings.Contains(reasons[0], "died") {
		t.Errorf("reason %q", reasons[0])
	}
	same(t, "effects", column(t, pool, `SELECT id FROM effects ORDER BY id`),
		"a-1", "a-2", "a-3", "a-4", "b-1", "b-2", "b-3", "b-4", "c-1", "c-2", "c-3", "c-4", "p-1")
	in := restart(t, pool, record)
	if all, err := NewDeadLetters(pool, in).ReplayAll(t.Context(), BlockedFilter{}); err != nil || len(all) != 1 || !all[0].Released {
		t.Fatalf("after the fix: %+v, %v", all, err)
	}
	same(t, "the poison's key", column(t, pool, `SELECT id FROM effects WHERE id LIKE 'p-%' ORDER BY n`), "p-1", "p-2", "p-3", "p-4")
}
