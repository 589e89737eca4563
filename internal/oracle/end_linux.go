package oracle

import "syscall"

// endsWithUs makes a process end when this one does.
func endsWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }
