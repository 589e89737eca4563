//go:build !linux

package emulate

func kernel() string { return "" }

func uname() string { return "" }

func runsELF([]byte) bool { return false }

// identity cannot tell a file from what replaces it here.
func identity(string) (string, bool) { return "", false }
