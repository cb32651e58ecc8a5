package access

import (
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"slices"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

//go:embed policy
var policyFiles embed.FS

// question is whether the principal may do the action with the rows of one
// merchant, or of all when merchantID is empty. refund is its amount, once known.
type question struct {
	principal  Principal
	action     Action
	merchantID string
	refund     *Refund
}

// answer names the policies that decided; none is a deny because nothing matched.
// failed are those that could not be evaluated: the answer is then worth nothing.
type answer struct {
	allowed  bool
	policies []string
	failed   []string
}

// policies is what Authorizer asks.
type policies interface {
	ask(q question) answer
}

// cedarPolicies is the Cedar engine (https://www.cedarpolicy.com): an explicit
// forbid wins over every permit, and nothing that matches is a deny.
type cedarPolicies struct{ set *cedar.PolicySet }

// loadPolicies reads schema.cedarschema and every *.cedar of the directory, and
// refuses what the schema does not know.
func loadPolicies(dir fs.FS) (cedarPolicies, *resolved.Schema, error) {
	set, err := parsePolicies(dir)
	if err != nil {
		return cedarPolicies{}, nil, err
	}
	b, err := fs.ReadFile(dir, "schema.cedarschema")
	if err != nil {
		return cedarPolicies{}, nil, fmt.Errorf("read the policies' schema: %w", err)
	}
	var s schema.Schema
	s.SetFilename("schema.cedarschema")
	if err := s.UnmarshalCedar(b); err != nil {
		return cedarPolicies{}, nil, fmt.Errorf("parse the policies' schema: %w", err)
	}
	known, err := s.Resolve()
	if err != nil {
		return cedarPolicies{}, nil, fmt.Errorf("parse the policies' schema: %w", err)
	}
	v := validate.New(known)
	for id, p := range set.All() {
		if err := v.Policy(string(id), (*ast.Policy)(p.AST())); err != nil {
			return cedarPolicies{}, nil, fmt.Errorf("the policy %s: %w", id, err)
		}
		// The validator takes any value of an enumeration.
		for _, role := range namedRole.FindAllSubmatch(p.MarshalCedar(), -1) {
			if !slices.Contains(known.Enums["Role"].Values, cedar.NewEntityUID("Role", cedar.String(role[1]))) {
				return cedarPolicies{}, nil, fmt.Errorf("the policy %s names a role that is none: %s", id, role[1])
			}
		}
	}
	return cedarPolicies{set}, known, nil
}

var namedRole = regexp.MustCompile(`Role::"([^"]*)"`)

// parsePolicies takes the annotation @id of each policy for its name.
func parsePolicies(dir fs.FS) (*cedar.PolicySet, error) {
	names, err := fs.Glob(dir, "*.cedar")
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("there are no policies: %w", err)
	}
	set := cedar.NewPolicySet()
	for _, name := range names {
		b, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, fmt.Errorf("read policies: %w", err)
		}
		list, err := cedar.NewPolicyListFromBytes(name, b)
		if err != nil {
			return nil, fmt.Errorf("parse policies: %w", err)
		}
		for _, p := range list {
			id := cedar.PolicyID(p.Annotations()["id"])
			if id == "" || !set.Add(id, p) {
				return nil, fmt.Errorf("%s: the policy in line %d needs an @id of its own", name, p.Position().Line)
			}
		}
	}
	return set, nil
}

func (c cedarPolicies) ask(q question) answer {
	key := cedar.NewEntityUID("Key", cedar.String(q.principal.KeyID))
	attributes := cedar.RecordMap{}
	if q.principal.MerchantID != "" {
		attributes["merchant"] = cedar.NewEntityUID("Merchant", cedar.String(q.principal.MerchantID))
	}
	resource := cedar.NewEntityUID("Service", "payments")
	if q.merchantID != "" {
		resource = cedar.NewEntityUID("Merchant", cedar.String(q.merchantID))
	}
	circumstances := cedar.RecordMap{}
	if q.refund != nil {
		circumstances["refund"] = cedar.NewRecord(cedar.RecordMap{
			"amount": cedar.Long(q.refund.Amount.Amount()), "currency": cedar.String(q.refund.Amount.Currency().String()),
			"of_payment": cedar.Long(q.refund.OfPayment), "of_person_today": cedar.Long(q.refund.OfPersonToday),
		})
	}
	decision, diagnostic := cedar.Authorize(c.set, cedar.EntityMap{key: {
		UID: key, Attributes: cedar.NewRecord(attributes),
		Parents: cedar.NewEntityUIDSet(cedar.NewEntityUID("Role", cedar.String(q.principal.Role))),
	}}, cedar.Request{
		Principal: key, Action: cedar.NewEntityUID("Action", cedar.String(q.action)), Resource: resource,
		Context: cedar.NewRecord(circumstances),
	})
	a := answer{allowed: decision == cedar.Allow}
	for _, r := range diagnostic.Reasons {
		a.policies = append(a.policies, string(r.PolicyID))
	}
	// Cedar skips a policy that cannot be evaluated, a forbid as well.
	for _, e := range diagnostic.Errors {
		a.failed = append(a.failed, string(e.PolicyID))
	}
	slices.Sort(a.policies) // the engine walks over a map
	slices.Sort(a.failed)
	a.allowed = a.allowed && len(a.failed) == 0
	return a
}
