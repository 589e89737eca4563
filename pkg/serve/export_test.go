package serve

import "context"

// For tests.
var (
	ParseUsers = parseUsers
	MayListen  = mayListen
)

// Collect removes what was deleted, now.
func (s *Server) Collect() { s.collect(context.Background()) }
