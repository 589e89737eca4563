package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// reach are the verbs about what a process can reach and is.
func reach(verb string, a []string) error {
	switch verb {
	case "fds": // what is open: "N TARGET"
		es, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return err
		}
		for _, e := range es {
			to, err := os.Readlink("/proc/self/fd/" + e.Name())
			if err == nil {
				fmt.Println(e.Name(), to)
			}
		}
	case "dial": // a unix socket; "@name" is an abstract one
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: a[0]}); err != nil {
			return err
		}
		fmt.Println("connected")
	case "listen": // TCP on loopback, and connect to it; the server's end closes first, as servers do
		l, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		addr := &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: num(a[0])}
		if err := syscall.Bind(l, addr); err != nil {
			return err
		}
		if err := syscall.Listen(l, 1); err != nil {
			return err
		}
		c, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		if err := syscall.Connect(c, addr); err != nil {
			return err
		}
		s, _, err := syscall.Accept(l)
		if err != nil {
			return err
		}
		if err := syscall.Close(s); err != nil {
			return err
		}
		if n, err := syscall.Read(c, make([]byte, 1)); n != 0 || err != nil {
			return fmt.Errorf("read %d bytes: %v", n, err)
		}
		return syscall.Close(c)
	case "connect": // TCP
		c, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		return syscall.Connect(c, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: num(a[0])})
	case "bomb": // TOKEN DEPTH: children that make children; bounded, because the machine is not ours alone
		for range 2 * min(num(a[1]), 1) {
			if err := child([]string{"bomb", a[0], strconv.Itoa(num(a[1]) - 1)}, true); err != nil {
				return err
			}
		}
		return do("sleep", []string{"600000"})
	case "open": // every path, with the error's text
		for _, name := range a {
			f, err := os.Open(name)
			if err != nil {
				fmt.Println(name, err.(*os.PathError).Err)
				continue
			}
			fmt.Println(name, "opened")
			f.Close()
		}
	case "fifo": // PATH NAME: opens the fifo for reading and, with no writer left, by its NAME/N as well
		w, err := os.OpenFile(a[0], os.O_RDWR, 0)
		if err != nil {
			return err
		}
		r, err := os.Open(a[0])
		if err != nil {
			return err
		}
		w.Close()
		return reach("open", []string{fmt.Sprintf("%s/%d", a[1], r.Fd())})
	case "create":
		for _, name := range a {
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			if err != nil {
				fmt.Println(name, err.(*os.PathError).Err)
				continue
			}
			fmt.Println(name, "opened")
			f.Close()
		}
	case "ptrace":
		_, _, e := syscall.RawSyscall6(syscall.SYS_PTRACE, 16, uintptr(num(a[0])), 0, 0, 0, 0)
		if e != 0 {
			return e
		}
	case "nonblock": // which of 0, 1 and 2 are
		for fd := range 3 {
			flags, _, e := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
			if e != 0 {
				return e
			}
			if flags&syscall.O_NONBLOCK != 0 {
				fmt.Println(fd)
			}
		}
	case "session": // are we the first of ours?
		sid, _, e := syscall.RawSyscall(syscall.SYS_GETSID, 0, 0, 0)
		if e != 0 {
			return e
		}
		fmt.Println(int(sid) == os.Getpid())
	case "keyring": // the number of the session's
		id, _, e := syscall.RawSyscall(syscall.SYS_KEYCTL, 0, ^uintptr(2), 0)
		if e != 0 {
			return e
		}
		fmt.Println(id)
	case "tiocsti":
		c := byte('x')
		_, _, e := syscall.Syscall(syscall.SYS_IOCTL, 0, 0x5412, uintptr(unsafe.Pointer(&c)))
		if e != 0 {
			return e
		}
	case "status": // lines of /proc/self/status
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			return err
		}
		for _, line := range strings.Split(string(b), "\n") {
			for _, key := range a {
				if strings.HasPrefix(line, key+":") {
					fmt.Println(line)
				}
			}
		}
	default:
		return hungry(verb, a)
	}
	return nil
}
