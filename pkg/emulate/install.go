package emulate

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
)

// ErrNotEmulator reports a file that cannot be an emulator on this host.
var ErrNotEmulator = errors.New("no emulator for this host")

// maxEmulator bounds one emulator's file in bytes; qemu's are below 20 MB.
const maxEmulator = 512 << 20

// Installed is an emulator that was put into a directory.
type Installed struct {
	Arch    string // whose programs it runs
	Path    string
	Version string // "" when it does not say
	Warning string // what is known against this version; "" is nothing
}

// ArchOfName says whose emulator a file is by its name: qemu-aarch64 (tonistiigi/binfmt, Debian 13's qemu-user) or
// qemu-aarch64-static (multiarch/qemu-user-static, Debian 12), in a directory bin.
func ArchOfName(name string) (arch string, ok bool) {
	if path.Base(path.Dir(path.Clean("/"+name))) != "bin" {
		return "", false
	}
	qemu, ok := strings.CutPrefix(path.Base(name), "qemu-")
	if !ok {
		return "", false
	}
	qemu = strings.TrimSuffix(qemu, "-static")
	for _, m := range machines {
		if m.qemu == qemu {
			return m.arch, true
		}
	}
	return "", false
}

// Install writes the emulator for arch that r has to dir, where [Options.Dir] finds it: all of it or nothing. It must be
// a static program of this host's architecture, else the error is an [ErrNotEmulator].
func Install(ctx context.Context, dir, arch string, r io.Reader) (_ Installed, err error) {
	m, ok := machineOf(arch)
	if !ok {
		return Installed{}, fmt.Errorf("%w: nothing is known of %s", ErrNotEmulator, arch)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Installed{}, fmt.Errorf("making a directory for emulators: %w", err)
	}
	f, err := os.CreateTemp(dir, ".qemu-*")
	if err != nil {
		return Installed{}, fmt.Errorf("installing an emulator: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // not there any more when it was renamed
		}
	}()
	n, err := io.Copy(f, io.LimitReader(r, maxEmulator+1))
	if err == nil && n > maxEmulator {
		err = fmt.Errorf("%w: it is larger than %d MB", ErrNotEmulator, maxEmulator>>20)
	}
	err = errors.Join(err, f.Chmod(0o755), f.Sync(), f.Close())
	if err != nil {
		return Installed{}, fmt.Errorf("installing the emulator of %s: %w", arch, err)
	}
	if err := runsHere(f.Name(), m); err != nil {
		return Installed{}, fmt.Errorf("%w: the emulator of %s: %w", ErrNotEmulator, arch, err)
	}
	i := Installed{Arch: arch, Path: filepath.Join(dir, "qemu-"+m.qemu+"-static"), Version: version(ctx, f.Name())}
	i.Warning = warning(arch, i.Version, kernel())
	if err := os.Rename(f.Name(), i.Path); err != nil {
		return Installed{}, fmt.Errorf("installing the emulator of %s: %w", arch, err)
	}
	return i, nil
}

// runsHere reports why a file cannot be m's emulator on this machine; nil when it can.
func runsHere(name string, m machine) error {
	if err := usable(name, m); err != nil {
		return err
	}
	host, ok := machineOf(runtime.GOARCH)
	if !ok {
		return nil // nothing to compare with
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 64)
	if _, err := io.ReadFull(f, head); err != nil {
		return err
	}
	if magic, mask := host.pattern(); !matches(head, magic, mask) {
		of := "another machine"
		if e, err := elf.NewFile(f); err == nil {
			of = strings.ToLower(strings.TrimPrefix(e.Machine.String(), "EM_"))
		}
		return fmt.Errorf("it is a program of %s, this machine is %s", of, host.arch)
	}
	return nil
}
