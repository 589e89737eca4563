package registry

import "syscall"

// connRefused is the errno of a port on which nothing listens: WSAECONNREFUSED.
const connRefused = syscall.Errno(10061)
