package access

// Role of a key; the database holds the same two names.
type Role string

const (
	RoleMerchant Role = "merchant"
	RoleOperator Role = "operator"
)

// Action is what a route does.
type Action string

const (
	PaymentsCreate   Action = "payments:create"
	PaymentsRead     Action = "payments:read"
	PaymentsList     Action = "payments:list"
	PaymentsTimeline Action = "payments:timeline"
	PaymentsCancel   Action = "payments:cancel"
	PaymentsCapture  Action = "payments:capture"
	RefundsCreate    Action = "refunds:create"
	RefundsList      Action = "refunds:list"
	StockRead        Action = "stock:read"
	StockWrite       Action = "stock:write"
	ParkedRead       Action = "parked:read"
	ParkedReplay     Action = "parked:replay"
	ParkedDiscard    Action = "parked:discard"
	SagasRead        Action = "sagas:read"
	SagasOperate     Action = "sagas:operate"
	WebhooksRead     Action = "webhooks:read"
	WebhooksWrite    Action = "webhooks:write"
)

// Actions lists every action there is.
func Actions() []Action {
	return []Action{
		PaymentsCreate, PaymentsRead, PaymentsList, PaymentsTimeline, PaymentsCancel, PaymentsCapture,
		RefundsCreate, RefundsList, StockRead, StockWrite, ParkedRead, ParkedReplay, ParkedDiscard,
		SagasRead, SagasOperate, WebhooksRead, WebhooksWrite,
	}
}

type effect string

const (
	allow effect = "allow"
	deny  effect = "deny"
)

type extent int

const (
	nothing extent = iota
	own            // what belongs to the principal's merchant
	all            // what belongs to any merchant
)

type statement struct {
	effect  effect
	roles   []Role
	actions []Action
	scope   extent // of an allow
}

// policy is the whole of it: testdata/policy.golden shows what it comes to.
var policy = []statement{
	{allow, []Role{RoleMerchant}, []Action{
		PaymentsCreate, PaymentsRead, PaymentsList, PaymentsTimeline, PaymentsCancel, PaymentsCapture, RefundsCreate, RefundsList, StockRead,
		WebhooksRead, WebhooksWrite,
	}, own},
	{allow, []Role{RoleOperator}, []Action{
		PaymentsRead, PaymentsList, PaymentsTimeline, RefundsList, StockRead, StockWrite, ParkedRead, ParkedReplay, ParkedDiscard,
		SagasRead, SagasOperate, WebhooksRead,
	}, all},
	// Whoever looks after the service moves no money in a merchant's name, whatever else is allowed.
	{deny, []Role{RoleOperator}, []Action{PaymentsCreate, PaymentsCapture, RefundsCreate}, nothing},
}
