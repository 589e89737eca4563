package sandbox

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory is how another task's memory is reached.
type memory interface {
	read(pid int, addr uint64, b []byte) error
	write(pid int, addr uint64, b []byte) error
	piece() int // how much of a string is best read at once; a power of two, a page at most
}

// vmMemory asks the kernel for it in one call, which containers' profiles refuse.
type vmMemory struct{}

func (vmMemory) piece() int { return 4096 }

func (vmMemory) read(pid int, addr uint64, b []byte) error {
	return vmCopy(pid, addr, b, unix.ProcessVMReadv)
}

func (vmMemory) write(pid int, addr uint64, b []byte) error {
	return vmCopy(pid, addr, b, unix.ProcessVMWritev)
}

func vmCopy(pid int, addr uint64, b []byte, do func(int, []unix.Iovec, []unix.RemoteIovec, uint) (int, error)) error {
	if len(b) == 0 {
		return nil
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := do(pid, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
	if err == nil && n != len(b) {
		err = unix.EFAULT
	}
	return err
}

// stoppedMemory is that of a task that the calling thread has stopped, word by word.
type stoppedMemory struct{}

const word = 8

func (stoppedMemory) piece() int { return 64 }

func (stoppedMemory) read(pid int, addr uint64, b []byte) error {
	for len(b) > 0 {
		at, v := addr%word, [word]byte{}
		if err := peekWord(pid, addr-at, &v); err != nil {
			return err
		}
		n := copy(b, v[at:])
		b, addr = b[n:], addr+uint64(n)
	}
	return nil
}

func (stoppedMemory) write(pid int, addr uint64, b []byte) error {
	for len(b) > 0 {
		at, v := addr%word, [word]byte{}
		if at != 0 || len(b) < word {
			if err := peekWord(pid, addr-at, &v); err != nil {
				return err
			}
		}
		n := copy(v[at:], b)
		if err := ptrace(unix.PTRACE_POKEDATA, pid, uintptr(addr-at), uintptr(binary.NativeEndian.Uint64(v[:]))); err != nil {
			return err
		}
		b, addr = b[n:], addr+uint64(n)
	}
	return nil
}

func peekWord(pid int, addr uint64, v *[word]byte) error {
	return ptrace(unix.PTRACE_PEEKDATA, pid, uintptr(addr), uintptr(unsafe.Pointer(v))) //nolint:gosec // the kernel fills it
}
