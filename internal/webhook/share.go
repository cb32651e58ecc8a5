package webhook

import (
	"cmp"
	"container/heap"
	"slices"
)

const (
	// perEndpoint deliveries at most are under way to an endpoint, one if its last attempt failed.
	perEndpoint = 4
	// A merchant has at most one in merchantShare of the slots, with all of its endpoints.
	merchantShare = 4
	// Slow endpoints of all merchants have at most one in slowShare of the slots together.
	slowShare = 2
)

// waiting is an endpoint that has deliveries due, and how many, up to perEndpoint.
type waiting struct {
	merchantID, endpointID string
	due                    int
	failing                bool
}

// use is what is in flight in one dispatcher, which is what its slots are shared by.
type use struct {
	slots      int
	inFlight   int
	byMerchant map[string]int
	byEndpoint map[string]int
	slow       map[string]bool // endpoints
	// What of the above goes to slow endpoints.
	slowInFlight   int
	slowByMerchant map[string]int
}

// share gives the free slots to the endpoints that wait, the longest waiting first: how many
// deliveries of each may be claimed. The merchant with the least in flight is always next. It
// gets a slot while it holds less than its share of all slots, and less than are still free: so
// n busy merchants end with equal parts, and the part of one more merchant stays free for it.
//
// Quick endpoints come first. Slow ones share what is left in the same way, up to their part of
// all slots: however many there are, they cannot take what quick ones need.
func (u *use) share(all []waiting) []waiting {
	granted := map[string]int{}
	u.pass(all, granted, false)
	u.pass(all, granted, true)
	var grants []waiting
	for _, w := range all {
		if w.due = granted[w.endpointID]; w.due > 0 {
			grants = append(grants, w)
		}
	}
	return grants
}

func (u *use) pass(all []waiting, granted map[string]int, slow bool) {
	of := map[string][]waiting{}
	var merchants []string
	for _, w := range all {
		if u.slow[w.endpointID] != slow {
			continue
		}
		if of[w.merchantID] == nil {
			merchants = append(merchants, w.merchantID)
		}
		of[w.merchantID] = append(of[w.merchantID], w)
	}
	held := u.byMerchant
	if slow {
		held = u.slowByMerchant
	}
	q := &queue{held: held, order: map[string]int{}, merchants: merchants}
	for i, m := range merchants {
		q.order[m] = i
	}
	heap.Init(q)
	for q.Len() > 0 {
		m := q.merchants[0]
		if held[m] >= u.free(slow) { // and so has every other at least
			return
		}
		e, ok := u.next(of[m], granted)
		if total := u.byMerchant[m]; !ok || total >= max(u.slots/merchantShare, 1) || total >= u.slots-u.inFlight {
			heap.Pop(q) // with slow endpoints, too, it leaves as many free as it holds
			continue
		}
		granted[e.endpointID]++
		u.take(m, e.endpointID)
		heap.Fix(q, 0)
	}
}

func (u *use) free(slow bool) int {
	free := u.slots - u.inFlight
	if slow {
		free = min(free, max(u.slots/slowShare, 1)-u.slowInFlight)
	}
	return free
}

// next is the merchant's endpoint with the least in flight of those that may have more.
func (u *use) next(endpoints []waiting, granted map[string]int) (least waiting, ok bool) {
	for _, e := range endpoints {
		n, most := u.byEndpoint[e.endpointID], perEndpoint
		if e.failing {
			most = 1
		}
		if n >= most || granted[e.endpointID] >= e.due || ok && n >= u.byEndpoint[least.endpointID] {
			continue
		}
		least, ok = e, true
	}
	return least, ok
}

func (u *use) take(merchantID, endpointID string) {
	u.inFlight++
	u.byMerchant[merchantID]++
	u.byEndpoint[endpointID]++
	if u.slow[endpointID] {
		u.slowInFlight++
		u.slowByMerchant[merchantID]++
	}
}

// queue is a heap of merchants: the one that holds the least is first, and of equals the one
// whose endpoint has waited longest.
type queue struct {
	held, order map[string]int
	merchants   []string
}

func (q *queue) Len() int { return len(q.merchants) }
func (q *queue) Less(i, j int) bool {
	a, b := q.merchants[i], q.merchants[j]
	return cmp.Or(cmp.Compare(q.held[a], q.held[b]), cmp.Compare(q.order[a], q.order[b])) < 0
}
func (q *queue) Swap(i, j int) { q.merchants[i], q.merchants[j] = q.merchants[j], q.merchants[i] }
func (q *queue) Push(m any)    { q.merchants = append(q.merchants, m.(string)) } //nolint:errcheck,forcetypeassert // heap.Interface
func (q *queue) Pop() any {
	last := len(q.merchants) - 1
	m := q.merchants[last]
	q.merchants = slices.Delete(q.merchants, last, last+1)
	return m
}
