package simulator

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	childLedger  = "PAYMENTS_TEST_SIMULATOR_CHILD"
	childWebhook = "PAYMENTS_TEST_SIMULATOR_CHILD_WEBHOOK"
)

// serveUntilKilled is the child process: it prints its URL and serves.
func serveUntilKilled(path string) {
	sim, err := Open(path, Config{Webhook: Webhook{URL: os.Getenv(childWebhook), Secret: testSecret}})
	if err != nil {
		panic(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println("http://" + listener.Addr().String())
	panic(http.Serve(listener, sim.Handler()))
}

func TestEveryAnswerSurvivesSIGKILL(t *testing.T) {
	const clients, enough, rounds = 20, 200, 3
	path := filepath.Join(t.TempDir(), "ledger.db")
	answered := map[string]string{} // key → operation id
	for round := range rounds {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childLedger+"="+path)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		address, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		base := strings.TrimSpace(address)
		transport := &http.Transport{}
		remote := &http.Client{Transport: transport}
		var mu sync.Mutex
		var wg sync.WaitGroup
		full := make(chan struct{})
		before := len(answered)
		for client := range clients {
			wg.Go(func() {
				for i := 0; ; i++ {
					key := fmt.Sprintf("k-%d-%d-%d", round, client, i)
					id, err := authorizeAt(t, remote, base, key)
					if err != nil {
						return // the server was killed
					}
					mu.Lock()
					answered[key] = id
					if len(answered) == before+enough {
						close(full)
					}
					mu.Unlock()
				}
			})
		}
		select {
		case <-full:
		case <-time.After(2 * patience):
			t.Error("the child is too slow")
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		_ = child.Wait() // killed
		transport.CloseIdleConnections()
	}

	sim, err := Open(path, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer sim.Close()
	last, err := sim.ledger.lastSequence()
	if err != nil {
		t.Fatal(err)
	}
	ledger := map[string]string{}
	for after, done := uint64(0), false; !done; {
		var page []operation
		if page, after, done, err = sim.ledger.page(filter{}, after, last); err != nil {
			t.Fatal(err)
		}
		for _, o := range page {
			if ledger[o.IdempotencyKey] != "" {
				t.Errorf("key %s was applied twice", o.IdempotencyKey)
			}
			ledger[o.IdempotencyKey] = o.ID
		}
	}
	for key, id := range answered {
		if ledger[key] != id {
			t.Errorf("%s was answered %s; the ledger has %q", key, id, ledger[key])
		}
	}
	t.Logf("%d answers, %d operations, %d kills", len(answered), len(ledger), rounds)
}

func authorizeAt(t *testing.T, client *http.Client, base, key string) (id string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v1/authorizations", strings.NewReader(authorize("", "pm_card_visa").body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var o operation
	if err := json.NewDecoder(resp.Body).Decode(&o); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("status %d", resp.StatusCode)
	}
	return o.ID, nil
}
