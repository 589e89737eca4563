//go:build !linux

package emulate

func uname() string { return "" }

func runsELF([]byte) bool { return false }
