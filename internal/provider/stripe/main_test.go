package stripe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startWithin is how long a stand-in may take, its installation or build included.
const startWithin = 3 * time.Minute

// start runs a server from the root of the repository until the test's end, and
// gives what address finds in its output. The server dies with this process too:
// its shell kills it once the standard input ends.
func start(t *testing.T, address *regexp.Regexp, command ...string) (string, error) {
	t.Helper()
	const untilInputEnds = `exec 3<&0; { cat <&3; kill $$; } >/dev/null 2>&1 & exec 3<&-; exec "$@"`
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	child := exec.Command("sh", append([]string{"-c", untilInputEnds, "sh"}, command...)...)
	child.Dir = "../../.."
	var stderr strings.Builder
	child.Stderr = &stderr
	in, err := child.StdinPipe()
	if err != nil {
		return "", err
	}
	out, err := child.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := child.Start(); err != nil {
		return "", err
	}
	found := make(chan string, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		defer close(found)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if m := address.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
				break
			}
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	stop := func() error {
		_ = in.Close() // the shell kills the server
		<-drained
		return child.Wait()
	}
	select {
	case url, ok := <-found:
		if ok {
			t.Cleanup(func() { _ = stop() }) // killed
			return url, nil
		}
		err = stop()
	case <-ctx.Done():
		err = errors.Join(ctx.Err(), stop())
	}
	return "", fmt.Errorf("%s did not start: %w: %s", command[0], err, stderr.String())
}
