package order

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"payments/internal/groupcommit"
	"payments/internal/payment"
	"payments/internal/provider"
	"payments/internal/saga"
)

const (
	// maxNotices are read by one statement, at most; parallelNotices are such statements side by side.
	maxNotices      = 128
	parallelNotices = 1
	noticeTime      = 5 * time.Second
)

// notice is a notification of which it is not known yet whether it matters.
type notice struct {
	provider.Notification
	sagaID, step string // of its key
	matters      bool
	err          error
}

func newNotices(s *Service) *groupcommit.Group[*notice] {
	return groupcommit.New(maxNotices, parallelNotices, s.readNotices)
}

// Matters reports whether Notified may do anything about a notification; false is certain.
// A payment that goes its usual way has none that matters: the saga that made the call learns
// the same from its answer. Notifications that come together are read by one statement.
//
// An authorization that is not in the books yet does not matter while the order's saga stands
// at the step that asked for it. That step ends with the outcome in the books, or begins the
// search for a late authorization (watch).
func (s *Service) Matters(ctx context.Context, n provider.Notification) (bool, error) {
	sagaID, step, named := requestOf(n.Key)
	usual := n.Operation == provider.Authorization || n.Operation == provider.Capture || n.Operation == provider.Void
	if !named || !usual || !payment.ValidID(payment.PrefixPayment, n.Reference) {
		return true, nil
	}
	asked := &notice{Notification: n, sagaID: sagaID, step: step}
	if err := s.notices.Submit(ctx, "", asked); err != nil {
		return false, fmt.Errorf("read the notified payment: %w", err)
	}
	return asked.matters, asked.err
}

// readNotices decides over all of them. A payment that is not ours matters to nobody.
func (s *Service) readNotices(ctx context.Context, all []*notice) {
	if err := s.tryNotices(ctx, all); err != nil {
		for _, n := range all {
			n.err = fmt.Errorf("read the notified payments: %w", err)
		}
	}
}

func (s *Service) tryNotices(ctx context.Context, all []*notice) (err error) {
	defer recovered(&err)
	ctx, cancel := context.WithTimeout(ctx, noticeTime)
	defer cancel()
	references := make([]string, len(all))
	for i, n := range all {
		references[i] = n.Reference
	}
	// payments_id serves the search by our id alone.
	rows, err := s.Engine.Query(ctx, `
		SELECT n.ordinality - 1, p.authorization_reference IS NOT NULL, coalesce(s.id, ''), coalesce(s.state, 'completed'), coalesce(s.step, ''),
			s.owner IS NULL AND s.due_at > now() AND (s.resolving OR s.attempts = 0)
		FROM unnest($1::text[]) WITH ORDINALITY AS n (reference)
			CROSS JOIN LATERAL (SELECT * FROM payments WHERE id = n.reference OFFSET 0) p
			`+sagaOfPayment,
		references, []string{sagaAutomatic, sagaManual})
	if err != nil {
		return err
	}
	var at noticed
	var n int
	var step string
	var waits *bool
	_, err = pgx.ForEachRow(rows, []any{&n, &at.authorized, &at.sagaID, &at.state, &step, &waits}, func() error {
		all[n].matters = all[n].mattersTo(at, step, waits != nil && *waits)
		return nil
	})
	return err
}

// sagaOfPayment joins payments p with the saga s of their order, of the definitions $2.
const sagaOfPayment = `LEFT JOIN LATERAL (
	SELECT s.* FROM unnest($2::text[]) AS d (name), LATERAL (
		SELECT * FROM sagas WHERE merchant_id = p.merchant_id AND definition = d.name AND subject = p.order_id OFFSET 0) s) s ON true`

// mattersTo decides by what is known of the payment. step is where the order's saga stands;
// waits says that no worker holds it and that news could make it due now (saga.Nudge).
func (n *notice) mattersTo(at noticed, step string, waits bool) bool {
	live := at.state == saga.Running || at.state == saga.Compensating
	if n.sagaID != at.sagaID {
		return true
	}
	if n.Operation == provider.Authorization && !n.Declined && !at.authorized && (at.state != saga.Running || step != stepAuthorize) {
		return true // the saga has gone on without it
	}
	return live && waits && step == n.step
}
