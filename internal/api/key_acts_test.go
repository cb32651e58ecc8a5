package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"payments/internal/access"
	"payments/internal/payment"
)

// person is somebody with an API key.
type person struct{ name, role, holder, keyID, key string }

func (p person) keyName() string { return strings.ReplaceAll(p.name, " ", "-") }

// persons are two operators, one of them with a second key in other letters, and one person of
// each other role.
func (w *world) persons() []person {
	w.t.Helper()
	all := []person{
		{"ada", "operator", "Ada", "", ""}, {"ada again", "operator", "ADA", "", ""}, {"grace", "operator", "grace", "", ""},
		{"support", "support", "sue", "", ""}, {"auditor", "auditor", "ann", "", ""},
	}
	for i, p := range all {
		all[i].keyID, all[i].key = w.made(`{"mode":"test","role":"`+p.role+`","holder":"`+p.holder+`"}`, key("p-"+p.keyName())...)
	}
	shop := `{"mode":"test","role":"%s","merchant":"` + w.merchantID + `","holder":"Ada"}` // a merchant's Ada is another person
	for _, role := range []string{"merchant", "merchant_reader"} {
		id, text := w.made(fmt.Sprintf(shop, role), key("p-"+role)...)
		all = append(all, person{role, role, "Ada", id, text})
	}
	return all
}

func (w *world) works(key string) bool {
	w.t.Helper()
	return key != "" && w.do("GET", "/v1/stock", key, "").status == 200
}

// proposeKey makes a key, or one in the place of target, and gives what the caller gets.
func (w *world) proposeKey(by person, target *person, role string) (a answer) {
	w.t.Helper()
	if target != nil {
		return w.do("POST", "/v1/ops/keys/"+target.keyID+"/rotate", by.key, `{"mode":"test","overlap_seconds":3600}`, key(w.ids.New("req"))...)
	}
	body := `{"mode":"test","role":"` + role + `","holder":"nobody"}`
	if role == "merchant" {
		body = `{"mode":"test","role":"merchant","merchant":"` + w.merchantID + `"}`
	}
	return w.do("POST", "/v1/ops/keys", by.key, body, key(w.ids.New("req"))...)
}

// Every act on keys, by every role, alone and in pairs. Alone nobody gets a key that works,
// except in the place of the own one; a pair does if it is two operators, and then neither of
// the two has the key.
func TestNobodyActsOnKeysAsTwoPersons(t *testing.T) {
	w := newWorld(t)
	all := w.persons()
	operator := func(p person) bool { return p.role == "operator" }
	for _, first := range all {
		targets := []*person{nil, nil}
		for i := range all {
			targets = append(targets, &all[i])
		}
		for n, target := range targets {
			role := []string{"operator", "merchant"}[n%2]
			what := fmt.Sprintf("%s makes a key of the role %s", first.name, role)
			own := false
			if target != nil {
				what = fmt.Sprintf("%s rotates the key of %s", first.name, target.name)
				own = !access.Role(target.role).OfMerchant() && !access.Role(first.role).OfMerchant() && payment.SamePerson(first.holder, target.holder)
			}
			for _, second := range all {
				a := w.proposeKey(first, target, role)
				if own {
					// The holder alone. The new key is of the same person.
					if a.status != 201 || a.at(t, "secret_part") != nil || !payment.SamePerson(a.at(t, "holder").(string), first.holder) || !w.works(a.at(t, "secret").(string)) {
						t.Fatalf("%s: %d %s", what, a.status, a.body)
					}
					target.keyID, target.key = a.at(t, "id").(string), a.at(t, "secret").(string)
					if first.name == target.name {
						first = *target
					}
					break
				}
				if !operator(first) {
					if a.status != 403 && a.status != 404 {
						t.Fatalf("%s: %d %s", what, a.status, a.body)
					}
					break
				}
				if a.status != 201 || a.at(t, "secret") != nil || a.at(t, "approved_at") != nil {
					t.Fatalf("%s: %d %s", what, a.status, a.body)
				}
				id, part := a.at(t, "id").(string), a.at(t, "secret_part").(string)
				pair := what + ", " + second.name + " approves"
				b := w.do("POST", "/v1/ops/keys/"+id+"/approve", second.key, "")
				switch {
				case !operator(second):
					w.refused(pair, b, 404, payment.CodeNotFound)
				case payment.SamePerson(first.holder, second.holder):
					w.refused(pair, b, 409, payment.CodeSecondOperator)
				default:
					if b.status != 200 || b.at(t, "secret") != nil {
						t.Fatalf("%s: %d %s", pair, b.status, b.body)
					}
					rest := b.at(t, "secret_part").(string)
					if w.works(part) || w.works(rest) || !w.works(part+rest) {
						t.Errorf("%s: one of the two has the key, or nobody has it", pair)
					}
					w.refused(pair+" twice", w.do("POST", "/v1/ops/keys/"+id+"/approve", second.key, ""), 409, payment.CodeAPIKeyInactive)
					if target != nil { // the holder puts the parts together
						target.keyID, target.key = id, part+rest
					}
					continue
				}
				if target != nil && !w.works(target.key) {
					t.Errorf("%s: the key before does not work any more", pair)
				}
				if a := w.do("DELETE", "/v1/ops/keys/"+id, first.key, ""); a.status != 200 {
					t.Fatalf("%d %s", a.status, a.body)
				}
				w.refused(pair+" too late", w.do("POST", "/v1/ops/keys/"+id+"/approve", w.operator, ""), 409, payment.CodeAPIKeyInactive)
			}
		}
	}
	w.recorded()
}

// recorded holds the whole record against the keys: each key has its making and, if it works
// and nobody rotated it for himself, the approval of another person; each act has its actor.
func (w *world) recorded() {
	w.t.Helper()
	t, made, approved, n := w.t, map[string]string{}, map[string]string{}, 0
	path := "/v1/ops/key_acts?limit=100"
	for cursor := ""; ; {
		page := w.do("GET", path+cursor, w.auditor, "")
		if page.status != 200 {
			t.Fatalf("%d %s", page.status, page.body)
		}
		for i := range 100 {
			at := fmt.Sprintf("data.%d.", i)
			if !strings.Contains(page.body, `"kac_`) || i >= strings.Count(page.body, `"object":"key_act"`) {
				break
			}
			n++
			for _, member := range []string{"operator", "holder", "origin", "created_at", "key_holder"} {
				if page.at(t, at+member) == nil && (member != "key_holder" || page.at(t, at+"merchant") == nil) {
					t.Errorf("an act without %s: %s", member, page.body)
				}
			}
			if origin := page.at(t, at+"origin"); origin != "127.0.0.1" || page.at(t, at+"source") != "api" {
				t.Errorf("from %s", origin)
			}
			id, holder := page.at(t, at+"key").(string), page.at(t, at+"holder").(string)
			switch action := page.at(t, at+"action"); action {
			case "make", "rotate":
				made[id] = holder
			case "approve":
				approved[id] = holder
			case "revoke", "pin":
			default:
				t.Errorf("an act %v", action)
			}
		}
		if page.at(t, "has_more") != true {
			break
		}
		cursor = "&cursor=" + page.at(t, "next_cursor").(string)
	}
	rows, err := w.pool.Query(t.Context(), `
		SELECT id, coalesce(holder, ''), approved_at IS NOT NULL, replaces IS NOT NULL AND merchant_id IS NULL FROM api_keys
		WHERE holder IS NULL OR holder NOT LIKE 'the %' AND holder <> 'a colleague'`)
	if err != nil {
		t.Fatal(err)
	}
	keys := 0
	var id, holder string
	var works, rotated bool
	_, err = pgx.ForEachRow(rows, []any{&id, &holder, &works, &rotated}, func() error {
		if made[id] == "" && holder == "" {
			return nil // a merchant's of the world
		}
		keys++
		byTwo := approved[id] != "" && !payment.SamePerson(made[id], approved[id])
		byHolder := rotated && approved[id] == "" && payment.SamePerson(made[id], holder)
		if made[id] == "" || works != (byTwo || byHolder) {
			t.Errorf("the key %s of %s works: %t; made by %q, approved by %q", id, holder, works, made[id], approved[id])
		}
		return nil
	})
	if err != nil || keys < 50 || n < 100 {
		t.Errorf("%d keys, %d acts (%v)", keys, n, err)
	}
}

// A key that was proposed and waits, or waited for too long, or lost its proposer, is no key.
func TestAProposedKeyWaits(t *testing.T) {
	w := newWorld(t)
	propose := func(body string) (id string) {
		t.Helper()
		a := w.do("POST", "/v1/ops/keys", w.operator, body, key(w.ids.New("req"))...)
		if a.status != 201 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return a.at(t, "id").(string)
	}
	approve := func(id string) answer { return w.do("POST", "/v1/ops/keys/"+id+"/approve", w.colleague, "") }
	const auditor = `{"mode":"live","role":"auditor","holder":"ann"}`
	late := propose(auditor)
	if _, err := w.pool.Exec(t.Context(), `UPDATE api_keys SET created_at = created_at - interval '25 hours' WHERE id = $1`, late); err != nil {
		t.Fatal(err)
	}
	w.refused("too late", approve(late), 409, payment.CodeAPIKeyInactive)
	revoked := propose(auditor)
	if a := w.do("DELETE", "/v1/ops/keys/"+revoked, w.auditor, ""); a.status != 404 {
		t.Errorf("revoked by an auditor: %d", a.status)
	}
	w.do("DELETE", "/v1/ops/keys/"+revoked, w.operator, "")
	w.refused("revoked", approve(revoked), 409, payment.CodeAPIKeyInactive)
	waits := propose(auditor)
	w.refused("rotated before its approval", w.do("POST", "/v1/ops/keys/"+waits+"/rotate", w.operator, `{"mode":"test"}`, key("r")...), 409, payment.CodeAPIKeyInactive)
	if a := approve(waits); a.status != 200 || a.at(t, "holder") != "ann" {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.refused("nobody's", approve(w.ids.New(payment.PrefixKey)), 404, payment.CodeNotFound)

	// Two rotations of one key wait: one takes its place.
	anns := waits
	var both []string
	for _, k := range []string{"r-1", "r-2"} {
		a := w.do("POST", "/v1/ops/keys/"+anns+"/rotate", w.operator, `{"mode":"test"}`, key(k)...)
		both = append(both, a.at(t, "id").(string))
	}
	if a := approve(both[1]); a.status != 200 || a.at(t, "replaces") != anns {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.refused("the other", approve(both[0]), 409, payment.CodeAPIKeyInactive)
	if errs := w.refused("no key", w.do("GET", "/v1/ops/key_acts?key=x", w.operator, ""), 400, payment.CodeInvalid); !slices.Equal(errs, []string{"/query/key id_invalid"}) {
		t.Error(errs)
	}
	of := w.do("GET", "/v1/ops/key_acts?key="+anns, w.auditor, "")
	if of.at(t, "data.0.action") != "rotate" || of.at(t, "data.0.detail") != anns || of.at(t, "data.2.action") != "approve" || of.at(t, "data.2.holder") != "a colleague" ||
		of.at(t, "data.3.action") != "make" || of.at(t, "data.3.holder") != "the operator" {
		t.Errorf("%s", of.body)
	}
	for _, k := range []string{w.merchant, w.reader, w.support} {
		w.refused("the record", w.do("GET", "/v1/ops/key_acts", k, ""), 403, payment.CodeForbidden)
	}
	// Nobody rewrites the record, not even the service.
	for _, sql := range []string{`UPDATE key_acts SET holder = 'eve'`, `DELETE FROM key_acts`, `TRUNCATE key_acts`} {
		if _, err := w.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s is carried out", sql)
		}
	}
	if log := w.log.String(); !strings.Contains(log, `"msg":"act on an API key","action":"approve","key":"`+anns+`"`) {
		t.Error("the log has no line of the approval")
	}
}
