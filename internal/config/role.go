package config

import "slices"

// Role is a part of the service that a process runs.
type Role string

const (
	RoleAPI       Role = "api"
	RoleSaga      Role = "saga"
	RoleRelay     Role = "relay"
	RoleProjector Role = "projector"
	RoleWebhooks  Role = "webhooks"
	RoleReports   Role = "reports"
)

// Roles of one process, each once.
type Roles []Role

func (r Roles) Has(role Role) bool { return slices.Contains(r, role) }

func allRoles() Roles {
	return Roles{RoleAPI, RoleSaga, RoleRelay, RoleProjector, RoleWebhooks, RoleReports}
}
