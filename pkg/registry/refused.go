//go:build !windows

package registry

import "syscall"

// connRefused is the errno of a port on which nothing listens.
const connRefused = syscall.ECONNREFUSED
