//go:build !linux

package oracle

import "syscall"

// endsWithUs does nothing: BuildKit's daemon is for Linux.
func endsWithUs() *syscall.SysProcAttr { return nil }
