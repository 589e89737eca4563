package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// overwrite tries to write to a file in every way, also through its mount, and prints "written" or why not. It writes
// what is there. With a second argument it first holds the file, says so, and waits for the end of stdin.
func overwrite(a []string) error {
	const oPath = 0x200000 // O_PATH
	fd, err := syscall.Open(a[0], oPath, 0)
	if err != nil {
		return err
	}
	if len(a) > 1 {
		fmt.Println("holding")
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			return err
		}
	}
	name := fmt.Sprintf("/proc/self/fd/%d", fd)
	err = write(name)
	for what, try := range map[string]func() error{
		"chmod":     func() error { return syscall.Chmod(name, 0o777) },
		"chown":     func() error { return syscall.Chown(name, 0, 0) },
		"read-only": func() error { return writable(fd) },
		"remount": func() error {
			return syscall.Mount("", name, "", syscall.MS_REMOUNT|syscall.MS_BIND, "")
		},
		"reconfigure": func() error { return syscall.Mount("", name, "", syscall.MS_REMOUNT, "") },
		"clone": func() error {
			const emptyPath, clone = 0x1000, 1
			m, err := openTree(fd, emptyPath|clone)
			if err == nil {
				err = writable(m)
			}
			if err == nil {
				err = write(fmt.Sprintf("/proc/self/fd/%d", m))
			}
			return err
		},
	} {
		if err == nil {
			break
		}
		if try() == nil {
			fmt.Println(what, "worked")
			err = write(name)
		}
	}
	if err != nil {
		fmt.Println(err)
		return nil
	}
	fmt.Println("written")
	return nil
}

func write(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err.(*os.PathError).Err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return err.(*os.PathError).Err
	}
	return nil
}

// writable takes MOUNT_ATTR_RDONLY from the mount of a descriptor.
func writable(fd int) error {
	const setattr, emptyPath = 442, 0x1000
	attr := struct{ set, clear, propagation, userns uint64 }{clear: 1}
	p := new(byte) // ""
	_, _, errno := syscall.Syscall6(setattr, uintptr(fd), uintptr(unsafe.Pointer(p)), emptyPath, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	runtime.KeepAlive(p)
	if errno != 0 {
		return errno
	}
	return nil
}

func openTree(fd int, flags uintptr) (int, error) {
	const nr = 428
	p := new(byte) // ""
	m, _, errno := syscall.Syscall(nr, uintptr(fd), uintptr(unsafe.Pointer(p)), flags)
	runtime.KeepAlive(p)
	if errno != 0 {
		return -1, errno
	}
	return int(m), nil
}
