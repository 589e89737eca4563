//go:build !linux

package local

func spread(string) {}
