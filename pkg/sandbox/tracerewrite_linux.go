package sandbox

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// This file decides what a program of another architecture is started as: the emulator, with its arguments written into the task.

// rewrite is an execve that waits for its task to have mapped memory, or to have let it be read.
type rewrite struct {
	unlock bool
	at     uint64 // where its path was written to
	given  bool   // there is no place to write to: the call is made as it was
	regs   regs
	path   string
	argv   []string // the emulator's, then the strings that replace the first of the task's
	keep   uint64   // address of the task's further arguments
}

// plan says what to execute instead; nil when it is a program of this machine.
func (t *tracer) plan(c *call) (*rewrite, error) {
	argvAt := c.args[1]
	if c.dir >= 0 {
		argvAt = c.args[2]
	}
	if target, ok := t.ownExe(c); ok {
		return &rewrite{path: target, keep: argvAt}, nil
	}
	f, err := t.files.file(c)
	if err != nil {
		return nil, err
	}
	name, err := t.files.readString(c, c.args[c.path], unix.PathMax)
	if err != nil {
		f.close()
		return nil, err
	}
	if c.dir >= 0 && int32(c.args[c.dir]) != unix.AT_FDCWD && !strings.HasPrefix(name, "/") {
		name = strings.TrimSuffix(fmt.Sprintf("/dev/fd/%d/%s", int32(c.args[c.dir]), name), "/")
	}
	argv0, rest, err := t.firstArg(c, argvAt)
	if err != nil {
		f.close()
		return nil, err
	}
	prefix := []string{name}
	for range 4 { // as many scripts deep as the kernel goes
		if f.st.Mode&unix.S_IFMT != unix.S_IFREG || f.st.Mode&0o111 == 0 {
			f.close()
			return nil, errNotOurs
		}
		head := t.head(f)
		f.close()
		if e := t.emulatorOf(head); e != nil {
			return &rewrite{path: e.inRootfs(), argv: append([]string{e.inRootfs(), "-0", argv0}, prefix...), keep: rest}, nil
		}
		interp, arg, ok := shebang(head)
		if !ok {
			return nil, nil
		}
		prefix = append(interpreter(interp, arg), prefix...)
		argv0 = interp
		if f, err = opened(t.files.resolve(c, -1, interp, pathOnly)); err != nil {
			return nil, err
		}
	}
	f.close()
	return nil, unix.ELOOP
}

func interpreter(interp, arg string) []string {
	if arg == "" {
		return []string{interp}
	}
	return []string{interp, arg}
}

// firstArg reads argv[0] and returns the address of what follows it.
func (t *tracer) firstArg(c *call, argv uint64) (string, uint64, error) {
	if argv == 0 {
		return "", 0, nil
	}
	var b [8]byte
	if err := t.files.readMemory(c, argv, b[:]); err != nil {
		return "", 0, err
	}
	p := binary.NativeEndian.Uint64(b[:])
	if p == 0 {
		return "", argv, nil
	}
	s, err := t.files.readString(c, p, 128<<10)
	return s, argv + 8, err
}

// head reads the start of a file.
func (t *tracer) head(f *file) []byte {
	fd, err := unix.Openat(t.files.proc, "self/fd/"+decimal(uint32(f.fd)), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	b := make([]byte, 256) // BINPRM_BUF_SIZE
	n, err := unix.Pread(fd, b, 0)
	if err != nil {
		return nil
	}
	return b[:n]
}

func (t *tracer) emulatorOf(head []byte) *emulator {
	for i, e := range t.emulators {
		if len(head) < len(e.Magic) {
			continue
		}
		same := true
		for k := range e.Magic {
			same = same && (head[k]^e.Magic[k])&e.Mask[k] == 0
		}
		if same {
			return &t.emulators[i]
		}
	}
	return nil
}

// shebang reads the first line of a script as the kernel does (fs/binfmt_script.c): one argument, with its spaces.
func shebang(head []byte) (interp, arg string, ok bool) {
	line, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		return "", "", false
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	text := strings.Trim(string(line), " \t")
	if i := strings.IndexAny(text, " \t\x00"); i >= 0 {
		interp, arg = text[:i], strings.Trim(text[i:], " \t")
		arg, _, _ = strings.Cut(arg, "\x00")
	} else {
		interp = text
	}
	return interp, arg, interp != ""
}

// size is how much memory the new arguments need; the task's own further ones are taken over by address.
func (w *rewrite) size() uint64 {
	n := len(w.path) + 1
	for _, s := range w.argv {
		n += len(s) + 1 + 8
	}
	return uint64(n) + 16 + 8*maxArgs
}

// write puts the new path and arguments into the task's memory at addr.
func (w *rewrite) write(m memory, pid int, addr uint64) (path, argv uint64, err error) {
	var strs []byte
	var ptrs []uint64
	add := func(s string) uint64 {
		at := addr + uint64(len(strs))
		strs = append(append(strs, s...), 0)
		return at
	}
	path = add(w.path)
	for _, s := range w.argv {
		ptrs = append(ptrs, add(s))
	}
	for at := w.keep; at != 0 && len(ptrs) < maxArgs; at += 8 {
		var b [8]byte
		if err := m.read(pid, at, b[:]); err != nil {
			return 0, 0, err
		}
		p := binary.NativeEndian.Uint64(b[:])
		if p == 0 {
			break
		}
		ptrs = append(ptrs, p)
	}
	ptrs = append(ptrs, 0)
	for len(strs)%8 != 0 {
		strs = append(strs, 0)
	}
	argv = addr + uint64(len(strs))
	for _, p := range ptrs {
		strs = binary.NativeEndian.AppendUint64(strs, p)
	}
	return path, argv, m.write(pid, addr, strs)
}
