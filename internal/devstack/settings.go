package devstack

// ServiceSettings of Postgres are what the service's load needs beyond the defaults, which are made for
// the smallest machine. docker-compose.yml has the same; docs/performance.md says what each one does.
// None of them weakens durability.
func ServiceSettings() []string {
	return []string{
		"shared_buffers=512MB",
		"max_wal_size=4GB",
		"checkpoint_timeout=15min",
		"checkpoint_completion_target=0.9",
		"wal_compression=on",
		"wal_buffers=16MB",
	}
}
