//go:build !linux

package emulate

func kernel() string { return "" }

func uname() string { return "" }

func runsELF([]byte) bool { return false }
