package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// hungry are the verbs that want more than they should have, and those about the terminal and calls that a step is denied.
func hungry(verb string, a []string) error {
	switch verb {
	case "eat": // MIB: memory, touched and kept
		b := make([]byte, num(a[0])<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		fmt.Println("ate")
		return do("sleep", []string{"600000"})
	case "waste": // DIR FILES MIB: files of so much each
		b := make([]byte, num(a[2])<<20)
		for i := range num(a[1]) {
			if err := os.WriteFile(a[0]+"/waste"+strconv.Itoa(i), b, 0o644); err != nil {
				return err
			}
		}
	case "call": // NUMBER ARG0 ARG1: a system call with such arguments
		_, _, e := syscall.Syscall(uintptr(num(a[0])), uintptr(num(a[1])), uintptr(num(a[2])), 0)
		if e != 0 {
			return e
		}
	case "processors":
		fmt.Println(runtime.NumCPU())
	case "terminal": // are the three descriptors one, whose is it, how large
		var size struct{ rows, cols, x, y uint16 }
		_, _, e := syscall.Syscall(syscall.SYS_IOCTL, 0, 0x5413, uintptr(unsafe.Pointer(&size)))
		if e != 0 {
			return e
		}
		name, err := os.Readlink("/proc/self/fd/0")
		if err != nil {
			return err
		}
		tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer tty.Close()
		var st syscall.Stat_t
		if err := syscall.Stat(name, &st); err != nil {
			return err
		}
		fmt.Println(name, size.cols, size.rows, st.Uid)
	case "pty": // make a terminal, and say what goes through it
		return pty()
	case "resized": // wait for it
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGWINCH)
		fmt.Println("waiting")
		<-c
		return hungry("terminal", nil)
	case "trap": // SIGNAL CODE: say which signal came, and exit
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.Signal(num(a[0])))
		fmt.Println("waiting")
		<-c
		fmt.Println("trapped", a[0])
		os.Exit(num(a[1]))
	case "line": // a line of stdin
		var b [256]byte
		n, err := os.Stdin.Read(b[:])
		if err != nil {
			return err
		}
		fmt.Println("read", strings.TrimSpace(string(b[:n])))
	default:
		return errors.New("unknown verb " + verb)
	}
	return nil
}

func ioctl(f *os.File, call uintptr, value *int32) error {
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), call, uintptr(unsafe.Pointer(value))); e != 0 {
		return e
	}
	return nil
}

// pty makes a terminal as openpty(3) does.
func pty() error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	var n, zero int32
	if err := errors.Join(ioctl(master, 0x80045430, &n), ioctl(master, 0x40045431, &zero)); err != nil {
		return err
	}
	name := "/dev/pts/" + strconv.Itoa(int(n))
	slave, err := os.OpenFile(name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	var st syscall.Stat_t
	if err := syscall.Stat(name, &st); err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFCHR {
		return errors.New(name + " is no device")
	}
	if _, err := slave.WriteString("through it\n"); err != nil {
		return err
	}
	var b [64]byte
	got, err := master.Read(b[:])
	if err != nil {
		return err
	}
	fmt.Printf("%s owner %d: %s\n", name, st.Uid, strings.TrimSpace(string(b[:got])))
	slave.Close()
	master.Close()
	if _, err := os.Stat(name); err == nil {
		return errors.New(name + " is there after its end")
	}
	fmt.Println(name, "is gone")
	return nil
}
