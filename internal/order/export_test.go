package order

// Queued is how many orders of the merchant wait for a transaction to take them.
func (s *Service) Queued(merchantID string) int { return s.placings.Waiting(merchantID) }
