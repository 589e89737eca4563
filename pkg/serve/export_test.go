package serve

// For tests.
var (
	ParseUsers = parseUsers
	MayListen  = mayListen
)
