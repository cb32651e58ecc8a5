package order_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"payments/internal/order"
	"payments/internal/payment"
	"payments/internal/provider"
	"payments/internal/saga"
)

var update = flag.Bool("update", false, "write docs/state-machines.md anew")

const diagrams = "../../docs/state-machines.md"

var statuses = []payment.Status{
	payment.StatusProcessing, payment.StatusRequiresCapture, payment.StatusRequiresReview,
	payment.StatusSucceeded, payment.StatusFailed, payment.StatusCanceled,
}

// TestTheDiagramsAreTheCode holds docs/state-machines.md to the definitions.
func TestTheDiagramsAreTheCode(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# State machines

Drawn from the code by a test (` + "`go test ./internal/order -run Diagrams -update`" + `), which fails when this file and the code differ.

A step ends *succeeded* or *rejected*; while its outcome is *unknown* the saga stays where it is and looks it up
(docs/patterns/saga.md). Arrows to a compensation are also taken when the merchant cancels or a deadline passes,
before the pivot was sent. A compensation that is rejected, and any step whose outcome stays unknown for as long as
the provider honors its key, parks the saga: the payment is ` + "`requires_review`" + ` and waits for two operators.

## A payment's status

` + "```mermaid\nstateDiagram-v2\n    [*] --> processing\n")
	for _, from := range statuses {
		for _, to := range statuses {
			if from.CanBecome(to) {
				fmt.Fprintf(&b, "    %s --> %s\n", from, to)
			}
		}
		if from.Terminal() {
			fmt.Fprintf(&b, "    %s --> [*]\n", from)
		}
	}
	b.WriteString("```\n")
	drawn := map[string]bool{} // the newest version of a saga comes first
	for _, d := range order.New(order.Config{Provider: (*provider.HTTP)(nil)}).Sagas() {
		if drawn[d.Name] {
			continue
		}
		drawn[d.Name] = true
		fmt.Fprintf(&b, "\n## Saga `%s`, version %d\n\n%s", d.Name, d.Version, draw(d))
	}
	if *update {
		if err := os.WriteFile(diagrams, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(diagrams)
	if err != nil || string(have) != b.String() {
		t.Errorf("%s is not what the code is (%v): run with -update", diagrams, err)
	}
}

func draw(d saga.Definition) string {
	var b strings.Builder
	fmt.Fprintf(&b, "```mermaid\nstateDiagram-v2\n    [*] --> %s\n", d.Steps[0].Do.Name)
	back := "[*]"
	for i, s := range d.Steps {
		next := "[*]"
		if i+1 < len(d.Steps) {
			next = d.Steps[i+1].Do.Name
		}
		fmt.Fprintf(&b, "    %s --> %s: succeeded\n", s.Do.Name, next)
		if s.Kind == saga.Retriable {
			fmt.Fprintf(&b, "    %s --> parked: rejected\n", s.Do.Name)
		} else {
			fmt.Fprintf(&b, "    %s --> %s: rejected\n", s.Do.Name, back)
		}
		if s.Kind == saga.Pivot {
			fmt.Fprintf(&b, "    note right of %s: the pivot\n", s.Do.Name)
		}
		if s.Undo != nil {
			fmt.Fprintf(&b, "    %s --> %s: undone\n    %s --> parked: rejected\n", s.Undo.Name, back, s.Undo.Name)
			back = s.Undo.Name
		}
	}
	b.WriteString("```\n")
	return b.String()
}

func TestTheDatabaseKnowsTheSameTransitions(t *testing.T) {
	w := newWorld(t)
	for _, from := range statuses {
		for _, to := range statuses {
			if from == to {
				continue
			}
			id := w.placed("pm_card_visa", payment.CaptureManual)
			// The state itself is reached behind the trigger's back.
			w.exec(`UPDATE payments SET amount_captured = amount, failure_code = 'x', failure_step = 'x', failure_message = 'x' WHERE id = $1`, id)
			if from != payment.StatusProcessing {
				w.exec(`UPDATE payments SET status = $2 WHERE id = $1`, id, from)
			}
			_, err := w.pool.Exec(t.Context(), `UPDATE payments SET status = $2 WHERE id = $1`, id, to)
			if allowed := err == nil; allowed != from.CanBecome(to) {
				t.Errorf("%s to %s: the database says %v, the domain %v", from, to, err, from.CanBecome(to))
			}
		}
	}
}
