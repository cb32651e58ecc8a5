package access

import "slices"

// Role of a key. The database holds the same names (api_keys_role_check), and so
// does policy/schema.cedarschema.
type Role string

const (
	// RoleMerchant writes and reads what is its merchant's own.
	RoleMerchant       Role = "merchant"
	RoleMerchantReader Role = "merchant_reader"
	RoleSupport        Role = "support"
	RoleOperator       Role = "operator"
	RoleAuditor        Role = "auditor"
)

// Roles lists every role there is.
func Roles() []Role {
	return []Role{RoleMerchant, RoleMerchantReader, RoleSupport, RoleOperator, RoleAuditor}
}

// OfMerchant reports whether a key of this role belongs to a merchant.
func (r Role) OfMerchant() bool { return r == RoleMerchant || r == RoleMerchantReader }

// Action is what a route does.
type Action string

const (
	PaymentsCreate     Action = "payments:create"
	PaymentsRead       Action = "payments:read"
	PaymentsList       Action = "payments:list"
	PaymentsTimeline   Action = "payments:timeline"
	PaymentsCancel     Action = "payments:cancel"
	PaymentsCapture    Action = "payments:capture"
	RefundsCreate      Action = "refunds:create"
	RefundsList        Action = "refunds:list"
	StockRead          Action = "stock:read"
	StockWrite         Action = "stock:write"
	DeadLettersRead    Action = "parked:read"
	DeadLettersReplay  Action = "parked:replay"
	DeadLettersDiscard Action = "parked:discard"
	SagasRead          Action = "sagas:read"
	SagasOperate       Action = "sagas:operate"
	WebhooksRead       Action = "webhooks:read"
	WebhooksWrite      Action = "webhooks:write"
	ReportsRead        Action = "reports:read"
	ReportsRefresh     Action = "reports:refresh"
	KeysRead           Action = "keys:read"
	// KeysRotate is the rotation of one's own keys; those of others need KeysWrite as well.
	KeysRotate   Action = "keys:rotate"
	KeysWrite    Action = "keys:write"
	AuthzExplain Action = "authz:explain"
	// ConfidentialRead is of no route: it decides whether an answer shows customers'
	// addresses, and of webhooks' URLs what is behind the host, where tokens are.
	ConfidentialRead Action = "confidential:read"
)

// Actions lists every action there is.
func Actions() []Action {
	return []Action{
		PaymentsCreate, PaymentsRead, PaymentsList, PaymentsTimeline, PaymentsCancel, PaymentsCapture,
		RefundsCreate, RefundsList, StockRead, StockWrite, DeadLettersRead, DeadLettersReplay, DeadLettersDiscard,
		SagasRead, SagasOperate, WebhooksRead, WebhooksWrite,
		ReportsRead, ReportsRefresh, KeysRead, KeysRotate, KeysWrite, AuthzExplain, ConfidentialRead,
	}
}

// Known reports whether the policies can say anything about the action.
func (a Action) Known() bool { return slices.Contains(Actions(), a) }
